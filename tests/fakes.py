"""Hand-written stand-ins for the ports, for tests of the core alone."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from numpy.typing import NDArray

from service.core.spec import ModelName, ModelSpec, Recognition
from service.core.types import Array, Float32Array, Tensors, Vocabulary

SPEC = ModelSpec(
    variant="fake",
    revision="f" * 64,
    precision="float32",
    licence="Apache-2.0",
    input_size=64,
    low_res_size=16,
    preprocessing=1,
    mask_tensors=("image_embedding",),
    region_tensors=("colours", "colours_scale"),
    windows={},
    region_takes_masks=True,
    clean_up=None,
    recognition=Recognition(embeddings=("region",), scale=(20.0,), background=False, base=0.0, novel=0.0),
    templates=("{}",),
    default_vocabulary="common",
)


class FakeBackend:
    """Segments what has the colour of the first click; a region's embedding is its mean colour.

    A text's embedding is the colour that its first token id names: 0 red, 1 green, 2 blue.
    """

    def __init__(self, *, spec: ModelSpec = SPEC, seconds: float = 0.0) -> None:
        self.spec = spec
        self.seconds = seconds
        self.calls: Counter[str] = Counter()
        self.items: Counter[str] = Counter()
        self.failure: Exception | None = None
        self.cancelled = 0

    async def run(self, model: ModelName, inputs: Tensors, *, timeout: float | None = None) -> dict[str, Array]:
        self.calls[model] += 1
        try:
            await asyncio.sleep(0 if model == "text_encoder" else self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        match model:
            case "image_encoder":
                small = inputs["image"][:, ::4, ::4].transpose(0, 3, 1, 2)
                scale = np.ones((1, 3), np.float32)
                return {"image_embedding": small, "colours": small, "colours_scale": scale}
            case "prompt_decoder":
                return self._decode(inputs)
            case "region_encoder":
                return {"region": self._describe(inputs)}
            case "text_encoder":
                return {"text_embedding": np.eye(3, dtype=np.float32)[inputs["token_ids"][:, 0] % 3]}

    def _decode(self, inputs: Tensors) -> dict[str, Array]:
        image = inputs["image_embedding"][0].astype(np.int32)
        coords = inputs["point_coords"][0]
        self.items["prompt_decoder"] += len(coords)
        logits = np.empty((1, len(coords), 16, 16), np.float32)
        boxes = np.zeros((1, len(coords), 4), np.float32)
        for row, slots in enumerate(coords):
            x, y = (slots[0] / 4).astype(int).clip(0, 15)
            same = np.abs(image - image[:, y, x][:, None, None]).sum(axis=0) < 30
            logits[0, row] = np.where(same, 5.0, -5.0)
            rows, columns = np.nonzero(same)
            boxes[0, row] = [4 * columns.min(), 4 * rows.min(), 4 * columns.max() + 4, 4 * rows.max() + 4]
        return {"mask_logits": logits, "boxes": boxes}

    def _describe(self, inputs: Tensors) -> Array:
        masks = inputs["masks"][0].astype(np.float32)
        colours = np.einsum("nhw,chw->nc", masks, inputs["colours"][0].astype(np.float32))
        unit: Array = (colours / np.maximum(np.linalg.norm(colours, axis=1, keepdims=True), 1e-6))[None]
        return unit

    async def probe(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def close(self) -> None:
        pass


class RecordingObserver:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.depths: dict[str, int] = {}

    def image(self, tenant: str, digest: str) -> None:
        self.counts[f"image:{tenant}"] += 1

    def span(self, name: str) -> AbstractContextManager[object]:
        return nullcontext()

    def stage(self, name: str, seconds: float) -> None:
        self.counts[f"stage:{name}"] += 1

    def batch(self, model: str, size: int) -> None:
        self.counts[f"batch:{model}"] += 1

    def cache(self, result: str) -> None:
        self.counts[f"cache:{result}"] += 1

    def cache_fault(self, kind: str) -> None:
        self.counts[f"fault:{kind}"] += 1

    def queue(self, name: str, depth: int) -> None:
        self.depths[name] = depth

    def dropped(self, queue: str, reason: str) -> None:
        self.counts[f"dropped:{queue}:{reason}"] += 1


class FakeLibrary:
    """Ships the one vocabulary `common`: red, green, blue."""

    def __init__(self) -> None:
        self.kept: dict[str, Float32Array] = {}

    def names(self) -> Sequence[str]:
        return ("common",)

    def load(self, name: str) -> Vocabulary | None:
        return Vocabulary(name="common", classes=(("red",), ("green",), ("blue",))) if name == "common" else None

    def embeddings(self, name: str, digest: str) -> Float32Array | None:
        return self.kept.get(digest)

    def keep(self, digest: str, embeddings: Float32Array) -> None:
        self.kept[digest] = embeddings


def fake_tokens(texts: Sequence[str]) -> NDArray[np.int64]:
    """red, green and blue are 0, 1 and 2; any other word is the length of it."""
    known = {"red": 0, "green": 1, "blue": 2}
    return np.array([[known.get(text, len(text))] for text in texts], dtype=np.int64)
