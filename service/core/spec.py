"""What the service knows of a model: the manifest of the model contract (`export/README.md`) as frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

ModelName: TypeAlias = Literal["image_encoder", "prompt_decoder", "region_encoder", "text_encoder"]
MODEL_NAMES: tuple[ModelName, ...] = ("image_encoder", "prompt_decoder", "region_encoder", "text_encoder")


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """A region tensor [B, channels, H, W] of the NumPy type `type`, read by square tiles of cells of `stride` pixels.

    A prompt needs it when the square root of its box's area in the model frame lies in `sizes` (pixels, inclusive).
    """

    stride: int
    tile: int
    sizes: tuple[float, float]
    channels: int
    type: str


@dataclass(frozen=True, slots=True)
class CleanUp:
    """Mask clean-up that a model asks for; the fractions are of the mask's area."""

    smooth_sigma: float
    keep_prompted: bool
    fill_holes_below: float
    drop_islands_below: float


@dataclass(frozen=True, slots=True)
class Recognition:
    """How region embeddings become scores (SPEC section 7).

    `embeddings` names one or two outputs, `scale` has the logit scale of each, `base` / `novel` are the weights of the
    second one, `background` adds a class of logit 0.
    """

    embeddings: tuple[str, ...]
    scale: tuple[float, ...]
    background: bool
    base: float
    novel: float


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model repository: sizes, bundle, clean-up, recognition, text, and the revision that keys every cache."""

    variant: str
    revision: str
    precision: str
    licence: str
    input_size: int
    low_res_size: int
    preprocessing: int
    mask_tensors: tuple[str, ...]
    region_tensors: tuple[str, ...]
    windows: Mapping[str, WindowSpec]
    region_takes_masks: bool
    clean_up: CleanUp | None
    recognition: Recognition
    templates: tuple[str, ...]
    default_vocabulary: str
    quality: Mapping[str, object] = field(default_factory=dict)
