"""deploy/SETTINGS.md is what the code says."""

from pathlib import Path

import pytest

from service import settings_page
from service.settings import Settings
from tests.deploy.manifests import DEPLOY, ROOT


def test_the_page_is_written_from_the_code() -> None:
    page = (DEPLOY / "SETTINGS.md").read_text()
    assert page == settings_page.render_page(), "run: python -m service.settings_page > deploy/SETTINGS.md"


def test_every_setting_has_a_row_with_a_meaning_and_none_names_this_machine() -> None:
    page = settings_page.render_page()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `OVSAM_")]
    assert [row[0] for row in rows] == [f"| `{settings_page.variable(name)}`" for name in Settings.model_fields]
    assert all(row[1] and row[2] and row[4].strip(" |") for row in rows)
    assert str(ROOT) not in page
    assert str(Path.home()) not in page


def test_the_variables_are_those_that_the_settings_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(settings_page.variable("max_prompts"), "7")
    assert Settings().max_prompts == 7
