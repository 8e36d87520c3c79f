"""The models alone, in this process: what the service is compared with; and the naive service, which keeps nothing."""

import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from service.adapters.manifest import read_repository
from service.adapters.onnx_backend import OnnxBackend
from service.core.bundles import region_parts, windows_for
from service.core.inference import decode_prompts, encode_image, encode_regions
from service.core.types import Point, Prompt


class BareModel:
    """Encoder, decoder and region encoder called one after the other, without queue, cache or wire."""

    def __init__(self, repository: Path, *, threads: int) -> None:
        self._backend = OnnxBackend(read_repository(repository), threads=threads, workers=1)

    async def open(self, content: bytes) -> None:
        """Encode the image that the clicks are on."""
        self._parts = await encode_image(self._backend, content, max_pixels=50_000_000, timeout=None)

    async def click(self, prompts: Sequence[Prompt]) -> None:
        """Decoder and region encoder for some prompts."""
        predictions = await decode_prompts(self._backend, self._parts["mask"], prompts, timeout=None)
        windows = windows_for([prediction.box for prediction in predictions], spec=self._backend.spec)
        parts = {name: self._parts[name] for name in region_parts(windows)}
        await encode_regions(self._backend, parts, windows, predictions, timeout=None)

    async def close(self) -> None:
        """Free the sessions."""
        await self._backend.close()


async def click_seconds(model: BareModel, x: float, y: float, *, prompts: int, seconds: float) -> list[float]:
    """Seconds of each call, called one after the other for about `seconds`."""
    clicks = [Prompt(points=(Point(x, y),))] * prompts
    return await _timed(lambda: model.click(clicks), seconds=seconds)


async def naive_seconds(model: BareModel, content: bytes, x: float, y: float, *, seconds: float) -> list[float]:
    """Seconds of a click when the image is decoded and encoded for each, as services without a cache do it."""

    async def click() -> None:
        await model.open(content)
        await model.click([Prompt(points=(Point(x, y),))])

    return await _timed(click, seconds=seconds)


async def _timed(call: Callable[[], Awaitable[None]], *, seconds: float) -> list[float]:
    """Call once unmeasured, then at least three times."""
    await call()
    end = time.perf_counter() + seconds
    taken: list[float] = []
    while len(taken) < 3 or time.perf_counter() < end:
        started = time.perf_counter()
        await call()
        taken.append(time.perf_counter() - started)
    return taken
