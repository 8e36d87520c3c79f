"""The values that the pipeline passes on; frozen, so a value seen once stays true.

Frames: *original* is the image as displayed (EXIF applied), *model* the S x S network input of the model contract
(`export/README.md`). Boxes are xyxy, sizes are (height, width), all in pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.generic]
Float32Array: TypeAlias = NDArray[np.float32]
UInt8Array: TypeAlias = NDArray[np.uint8]
BoolArray: TypeAlias = NDArray[np.bool_]
Tensors: TypeAlias = Mapping[str, Array]
"""Named tensors, the batch axis included."""
Source: TypeAlias = Literal["memory", "redis", "miss", "coalesced"]
"""Where an embedding came from; a tier of the cache, encoded now, or encoded now for someone else."""


class Size(NamedTuple):
    """Height and width in pixels."""

    height: int
    width: int


class Point(NamedTuple):
    """A click in the original frame; `foreground` is False for a click on what the mask must leave out."""

    x: float
    y: float
    foreground: bool = True


class Box(NamedTuple):
    """x1, y1, x2, y2 in pixels."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True)
class ImageKey:
    """Names one image's embedding: nothing of another tenant, model or preprocessing can ever be taken for it."""

    tenant: str
    digest: str
    revision: str
    preprocessing: int

    @property
    def text(self) -> str:
        """The cache key; 16 hex digits of the revision tell models apart well enough to read in a console."""
        return f"{self.tenant}:{self.digest}:{self.revision[:16]}:{self.preprocessing}"


@dataclass(frozen=True, slots=True)
class Letterbox:
    """The way between the original frame and the model frame (SPEC section 1): scaled, at the top left, then padded."""

    original: Size
    resized: Size

    @classmethod
    def fit(cls, original: Size, *, input_size: int) -> "Letterbox":
        """Scale the longer side to `input_size`, also up; both sides are rounded half up, and at least one pixel."""
        scale = input_size / max(original)
        height, width = (max(1, int(side * scale + 0.5)) for side in original)
        return cls(original=original, resized=Size(height, width))

    @property
    def scale(self) -> tuple[float, float]:
        """(x, y) factors from original to model frame; they differ by the rounding of the resized sides."""
        return self.resized.width / self.original.width, self.resized.height / self.original.height


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What points at one object: clicks, a box, or both, and the logits of an earlier answer to refine.

    `mask_input` is [L, L] low-resolution logits in the model frame.
    """

    points: tuple[Point, ...] = ()
    box: Box | None = None
    mask_input: Float32Array | None = None


@dataclass(frozen=True, slots=True, eq=False)
class MaskPrediction:
    """The prompt decoder's answer to one prompt, after the clean-up that the model asks for.

    `logits` is [L, L] over the whole model frame, `box` the mask's box in the model frame (all zero when empty),
    `visibility` 1 where the second region embedding counts (SPEC section 7).
    """

    logits: Float32Array
    box: Box
    visibility: float

    @property
    def empty(self) -> bool:
        """Whether no pixel was found."""
        return self.box.x2 <= self.box.x1


class ClassScore(NamedTuple):
    """A class name and its probability over the vocabulary asked for."""

    name: str
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class ImageEmbedding:
    """One image's embedding bundle in parts (see `bundles`), and how its pixels lie in the model frame.

    `source` says where it came from: memory, redis, miss (encoded now) or coalesced (encoded for someone else now).
    """

    key: ImageKey
    letterbox: Letterbox
    parts: Mapping[str, Tensors]
    source: Source


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """Class names with synonyms; `base` and `novel` are indices for the score fusion, both empty when all are novel."""

    name: str
    classes: tuple[tuple[str, ...], ...]
    base: frozenset[int] = frozenset()
    novel: frozenset[int] = frozenset()
    title: str = ""
    licence: str = ""
    source: str = ""
    templates: tuple[str, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The display name of each class."""
        return tuple(synonyms[0] for synonyms in self.classes)


@dataclass(frozen=True, slots=True, eq=False)
class TextClassifier:
    """A vocabulary in the text space.

    `embeddings` is [T, D] unit rows, one for each synonym; class k owns the rows from `starts[k]` to the next start.
    `second_weight` [K] is the weight of the second region embedding; `excluded` [K] marks classes in no split.
    """

    names: tuple[str, ...]
    embeddings: Float32Array
    starts: NDArray[np.intp]
    second_weight: Float32Array
    excluded: BoolArray | None = None
