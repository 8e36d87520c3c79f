"""The variants this package can export, as data: one network, several rows of sizes.

`tiny` is the same network at sizes a unit test can afford. Every row keeps the geometry of the paper: feature strides
4, 8, 16, 32, an image embedding at stride 16 and low-res masks at stride 4.
"""

from dataclasses import dataclass, replace
from typing import Literal

LEVEL_STRIDES = (4, 8, 16, 32)
EMBEDDING_STRIDE = 16
LOW_RES_STRIDE = 4
RegionStore = Literal["uint8", "float16"]


@dataclass(frozen=True, slots=True)
class TrunkSizes:
    """CLIP's modified ResNet."""

    width: int
    blocks: tuple[int, int, int, int]

    @property
    def level_channels(self) -> tuple[int, int, int, int]:
        """Channels of C2, C3, C4, C5."""
        w = self.width * 4
        return (w, w * 2, w * 4, w * 8)


@dataclass(frozen=True, slots=True)
class AdapterSizes:
    """SAM2CLIP: `windowed` blocks with local attention, then one global block."""

    dim: int
    heads: int
    mlp_dim: int
    window: int
    windowed: int


@dataclass(frozen=True, slots=True)
class DecoderSizes:
    """SAM's prompt encoder and mask decoder, and the feature pyramid that shares their width."""

    dim: int
    heads: int
    mlp_dim: int
    mask_channels: int


@dataclass(frozen=True, slots=True)
class TextSizes:
    """CLIP's text transformer."""

    width: int
    heads: int
    layers: int
    context: int = 77
    vocabulary: int = 49408


@dataclass(frozen=True, slots=True)
class Variant:
    """Everything that differs between two exported networks, apart from their weights."""

    name: str
    input_size: int
    text_dim: int
    head_cells: int
    clip_cells: int
    trunk: TrunkSizes
    adapter: AdapterSizes
    decoder: DecoderSizes
    text: TextSizes
    region_store: RegionStore = "uint8"

    @property
    def grid(self) -> int:
        """Cells on a side of the image embedding."""
        return self.input_size // EMBEDDING_STRIDE

    @property
    def low_res_size(self) -> int:
        """Cells on a side of a low-res mask."""
        return self.input_size // LOW_RES_STRIDE


_RN50X16 = Variant(
    name="ovsam-rn50x16",
    input_size=1024,
    text_dim=768,
    head_cells=12,
    clip_cells=12,
    trunk=TrunkSizes(width=96, blocks=(6, 8, 18, 8)),
    adapter=AdapterSizes(dim=1280, heads=16, mlp_dim=5120, window=14, windowed=4),
    decoder=DecoderSizes(dim=256, heads=8, mlp_dim=2048, mask_channels=32),
    text=TextSizes(width=768, heads=12, layers=12),
)

_TINY = Variant(
    name="tiny",
    input_size=128,
    text_dim=24,
    head_cells=4,
    clip_cells=4,
    trunk=TrunkSizes(width=4, blocks=(2, 1, 1, 1)),
    adapter=AdapterSizes(dim=16, heads=2, mlp_dim=32, window=3, windowed=1),
    decoder=DecoderSizes(dim=32, heads=4, mlp_dim=48, mask_channels=8),
    text=TextSizes(width=16, heads=2, layers=1),
)

VARIANTS: dict[str, Variant] = {
    variant.name: variant for variant in (_RN50X16, replace(_RN50X16, name="ovsam-rn50x16-lvis", head_cells=7), _TINY)
}
