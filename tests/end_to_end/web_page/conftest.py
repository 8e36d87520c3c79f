"""One server and one browser for all tests of the page; they end with this package, whose browser has its own loop."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser, ViewportSize

from tests.end_to_end.gateway import Gateway, running_gateway
from tests.end_to_end.web_page.visitor import DESKTOP, Arrive, Visitor, chromium


@pytest.fixture(scope="package")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("page")) as running:
        yield running


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def arrive(browser: Browser, gateway: Gateway) -> Iterator[Arrive]:
    """Opens the page in a window; afterwards nothing may have gone wrong in it, and nobody else been asked."""
    visitors: list[Visitor] = []
    with ExitStack() as stack:

        def enter(*, size: tuple[int, int] = DESKTOP, density: float = 1, **options: Any) -> Visitor:
            viewport: ViewportSize = {"width": size[0], "height": size[1]}
            context = browser.new_context(viewport=viewport, device_scale_factor=density, **options)
            stack.callback(context.close)
            visitors.append(Visitor(context.new_page(), gateway.url, density))
            return visitors[-1]

        yield enter
        for visitor in visitors:
            assert visitor.errors == []
            assert visitor.foreign_requests() == []
