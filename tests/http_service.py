"""The real app over a fake network, asked through HTTP without a socket."""

import io
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI
from PIL import Image

from service.adapters.leases import LocalLeases
from service.adapters.memory_cache import MemoryCache
from service.adapters.vocabulary_stores import FolderVocabularyStore
from service.app import assemble, build_app, open_gate
from service.core.ports import EmbeddingCache
from service.core.vocabularies import Vocabularies, VocabularyLimits
from service.settings import Settings
from service.telemetry import PrometheusObserver
from service.transports.services import Services
from tests.fakes import FakeBackend, FakeLibrary, fake_tokens


@dataclass
class FakeService:
    """An app that runs, and what a test looks at."""

    app: FastAPI
    http: httpx.AsyncClient
    backend: FakeBackend
    services: Services

    def metric(self, name: str, **labels: str) -> float:
        """The value of one sample in /metrics; 0 when it was never counted."""
        return metric(self.services.observer.render().decode(), name, **labels)


def metric(text: str, name: str, **labels: str) -> float:
    """One sample of a Prometheus text."""
    for line in text.splitlines():
        if line.startswith((name + " ", name + "{")) and all(f'{k}="{v}"' in line for k, v in labels.items()):
            return float(line.rsplit(" ", 1)[1])
    return 0.0


@asynccontextmanager
async def fake_service(
    tmp_path: Path, *, backend: FakeBackend | None = None, cache: EmbeddingCache | None = None, **settings: Any
) -> AsyncIterator[FakeService]:
    """The app as `ovsam serve` builds it, but for the network, running."""
    network = backend or FakeBackend()
    app = fake_app(tmp_path, backend=network, cache=cache, **settings)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield FakeService(app, http, network, app.state.services)


def fake_app(tmp_path: Path, *, backend: FakeBackend, cache: EmbeddingCache | None = None, **settings: Any) -> FastAPI:
    """The app as `ovsam serve` builds it, but for the network, not yet started."""

    async def opener(chosen: Settings, observer: PrometheusObserver, stack: AsyncExitStack) -> Services:
        vocabularies = Vocabularies(
            backend=backend,
            tokenize=fake_tokens,
            library=FakeLibrary(),
            store=FolderVocabularyStore(tmp_path),
            limits=VocabularyLimits(names=chosen.max_names),
        )
        kept = cache or MemoryCache(2**24)
        services = assemble(
            chosen,
            backend=backend,
            cache=kept,
            leases=LocalLeases(),
            vocabularies=vocabularies,
            gate=open_gate(chosen, None, observer),
            observer=observer,
        )
        for part in (vocabularies, services.embedder, services.segmenter):
            stack.push_async_callback(part.close)
        return services

    return build_app(Settings(cache_dir=tmp_path, **settings), opener=opener)


def picture(width: int = 64, height: int = 48, *, form: str = "PNG") -> bytes:
    """Blue, with a red square at (8, 8)-(24, 24) and a green one at (40, 16)-(56, 32)."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, :] = (0, 0, 200)
    pixels[8:24, 8:24] = (220, 0, 0)
    pixels[16:32, 40:56] = (0, 180, 0)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=form)
    return stream.getvalue()
