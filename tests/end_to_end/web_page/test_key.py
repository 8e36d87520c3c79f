"""The page before a service that wants an API key."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from service.adapters.keys import line_of, new_key
from tests.end_to_end.gateway import Gateway, running_gateway

KEY = new_key()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder: Path = tmp_path_factory.mktemp("guarded")
    (folder / "keys").write_text(line_of(KEY, tenant="acme"))
    with running_gateway(folder, api_keys_file=str(folder / "keys")) as running:
        yield running


@pytest.fixture
def page(browser: Browser, guarded: Gateway) -> Iterator[Page]:
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    page.goto(guarded.url)
    yield page
    context.close()


def test_a_key_is_asked_for_once_and_kept_as_long_as_the_tab(page: Page) -> None:
    dialog = page.get_by_role("dialog", name="This service needs an API key")
    expect(dialog).to_be_visible()
    field = page.get_by_label("API key", exact=True)
    expect(field).to_be_focused()
    expect(field).to_have_attribute("type", "password")
    field.fill("wrong")
    field.press("Enter")
    expect(dialog.get_by_text("That key is not valid")).to_be_visible()
    field.fill(f" {KEY} ")
    dialog.get_by_role("button", name="Use it").click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#model")).to_be_visible()
    page.locator(".samples button").first.click()
    page.locator("#stage").click(position={"x": 300, "y": 300})
    expect(page.locator("#objects li")).to_have_count(1)
    page.reload()
    expect(page.locator("#model")).to_be_visible()
    expect(dialog).to_be_hidden()
    assert KEY not in page.content()


def test_who_has_no_key_is_told_what_is_missing(page: Page) -> None:
    dialog = page.get_by_role("dialog", name="This service needs an API key")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("alert").get_by_text("API key missing or wrong")).to_be_visible()
