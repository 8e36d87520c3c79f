"""Cuts embedding bundles into the parts that are cached and read by themselves.

    mask                  the mask group and the letterbox: all that a mask needs
    region                the region group but for windowed tensors
    <tensor>/<row>/<col>  one tile of a windowed tensor (SPEC section 13: a click reads only the tiles under its box)

A part is a dict of named arrays with the batch axis, so a cache can keep it without knowing what it is.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from service.core.spec import ModelSpec, WindowSpec
from service.core.types import Array, Box, Letterbox, Size, Tensors

MASK_PART = "mask"
REGION_PART = "region"
_LETTERBOX = "letterbox"
_MARGIN = 2  # cells beside the box that bilinear sampling may touch, rounded up


@dataclass(frozen=True, slots=True)
class Window:
    """Tiles `rows` x `columns` (half-open ranges of tile indices) of one windowed tensor."""

    tensor: str
    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def parts(self) -> list[str]:
        """The names of the tiles, row by row."""
        return [f"{self.tensor}/{row}/{column}" for row in range(*self.rows) for column in range(*self.columns)]


def split_bundle(bundle: Tensors, letterbox: Letterbox, *, spec: ModelSpec) -> dict[str, Tensors]:
    """Cut the image encoder's answer for one image (batch axis 1) into parts."""
    sides = np.array([*letterbox.original, *letterbox.resized], dtype=np.int32)
    parts: dict[str, Tensors] = {
        MASK_PART: {**{name: bundle[name] for name in spec.mask_tensors}, _LETTERBOX: sides},
        REGION_PART: {name: bundle[name] for name in spec.region_tensors if name not in spec.windows},
    }
    for name, window in spec.windows.items():
        tensor, tile = bundle[name], window.tile
        for row in range(-(-tensor.shape[2] // tile)):
            for column in range(-(-tensor.shape[3] // tile)):
                cut = tensor[:, :, row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]
                parts[f"{name}/{row}/{column}"] = {name: np.ascontiguousarray(cut)}
    return parts


def letterbox_of(mask_part: Tensors) -> Letterbox:
    """The letterbox kept in a mask part."""
    height, width, resized_height, resized_width = (int(side) for side in mask_part[_LETTERBOX])
    return Letterbox(original=Size(height, width), resized=Size(resized_height, resized_width))


def mask_inputs(mask_part: Tensors) -> dict[str, Array]:
    """The mask group alone, as the prompt decoder takes it."""
    return {name: array for name, array in mask_part.items() if name != _LETTERBOX}


def windows_for(boxes: Sequence[Box], *, spec: ModelSpec) -> list[Window]:
    """The window of each windowed tensor that covers all boxes (model frame) which need it; none needed, no window."""
    windows = []
    for name, window in spec.windows.items():
        needing = [box for box in boxes if _needs(box, window)]
        if needing:
            cells = spec.input_size // window.stride
            rows = _tiles([(box.y1, box.y2) for box in needing], window, cells=cells)
            columns = _tiles([(box.x1, box.x2) for box in needing], window, cells=cells)
            windows.append(Window(name, rows, columns))
    return windows


def region_parts(windows: Iterable[Window]) -> list[str]:
    """All parts that a region encoder call over these windows reads."""
    return [REGION_PART, *(part for window in windows for part in window.parts)]


def region_inputs(parts: Mapping[str, Tensors], windows: Sequence[Window], *, spec: ModelSpec) -> dict[str, Array]:
    """Join what was read into the region encoder's inputs.

    A windowed tensor that no box needs is sent as one tile of zeros: the graph multiplies it away.
    """
    inputs: dict[str, Array] = dict(parts[REGION_PART])
    read = {window.tensor: window for window in windows}
    for name, window_spec in spec.windows.items():
        window = read.get(name)
        if window is None:
            inputs[name] = np.zeros((1, window_spec.channels, window_spec.tile, window_spec.tile), window_spec.type)
            origin = (0, 0)
        else:
            inputs[name] = _join(parts, window)
            origin = (window.rows[0] * window_spec.tile, window.columns[0] * window_spec.tile)
        inputs[f"{name}_origin"] = np.array([origin], dtype=np.int32)
    return inputs


def _needs(box: Box, window: WindowSpec) -> bool:
    size = (max(0.0, box.x2 - box.x1) * max(0.0, box.y2 - box.y1)) ** 0.5
    return bool(size > 0 and window.sizes[0] <= size <= window.sizes[1])


def _tiles(spans: Sequence[tuple[float, float]], window: WindowSpec, *, cells: int) -> tuple[int, int]:
    """The tile range that covers all spans (pixels) with the margin, inside a map of `cells` cells."""
    first = int(min(low for low, _ in spans) // window.stride) - _MARGIN
    last = int(max(high for _, high in spans) // window.stride) + _MARGIN
    return max(0, min(first, cells - 1)) // window.tile, min(max(last, 0), cells - 1) // window.tile + 1


def _join(parts: Mapping[str, Tensors], window: Window) -> Array:
    rows = [
        np.concatenate(
            [parts[f"{window.tensor}/{row}/{column}"][window.tensor] for column in range(*window.columns)], axis=3
        )
        for row in range(*window.rows)
    ]
    return np.concatenate(rows, axis=2)
