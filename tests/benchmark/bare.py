"""The models alone, in this process: what the service is compared with; and the naive service, which keeps nothing."""

import asyncio
import time
from collections.abc import Sequence
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


async def click_seconds(model: BareModel, x: float, y: float, *, prompts: int, runs: int) -> list[float]:
    """Seconds of each of `runs` calls."""
    clicks = [Prompt(points=(Point(x, y),))] * prompts
    await model.click(clicks)
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        await model.click(clicks)
        seconds.append(time.perf_counter() - started)
        await asyncio.sleep(0)
    return seconds


async def naive_seconds(model: BareModel, content: bytes, x: float, y: float, *, runs: int) -> list[float]:
    """Seconds of a click when the image is decoded and encoded for each, as services without a cache do it."""
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        await model.open(content)
        await model.click([Prompt(points=(Point(x, y),))])
        seconds.append(time.perf_counter() - started)
    return seconds
