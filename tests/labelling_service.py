"""The app over the fake network, with a Label Studio that answers for its pictures."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from service.core.errors import FetchRefused
from tests.http_service import FakeService, fake_service, picture


@dataclass
class FakeSite:
    """Serves what lies under a URL, and remembers who asked with which headers."""

    pages: dict[str, bytes] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, str], bytes | None]] = field(default_factory=list)

    async def __call__(self, url: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> bytes:
        self.calls.append((url, dict(headers or {}), body))
        if url not in self.pages:
            raise FetchRefused(f"{url} is not there")
        return self.pages[url]


@dataclass
class LabellingService:
    """An app, and the site that it fetches pictures from."""

    fake: FakeService
    site: FakeSite


@asynccontextmanager
async def labelling_service(tmp_path: Path, **settings: Any) -> AsyncIterator[LabellingService]:
    """The app set up for a Label Studio at http://studio:8080 with one picture."""
    site = FakeSite({"http://studio:8080/data/upload/1/x.png": picture()})
    async with fake_service(tmp_path, **settings) as fake:
        fake.app.state.services = replace(fake.services, fetch=site)
        yield LabellingService(fake, site)
