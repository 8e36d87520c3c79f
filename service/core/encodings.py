"""A mask as COCO's compressed RLE, as polygons with holes, and as a 1-bit PNG; all exact to the pixel."""

import io
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.core.types import BoolArray


@dataclass(frozen=True, slots=True)
class Ring:
    """A closed outline as [n, 2] pixel centres (x, y); `hole` rings lie inside the ring before them."""

    points: NDArray[np.int32]
    hole: bool


def encode_rle(mask: BoolArray) -> str:
    """COCO's compressed RLE of a mask [H, W] (`counts` of {"size": [H, W], "counts": ...})."""
    return _compress(_column_runs(mask))


def encode_polygons(mask: BoolArray, *, simplify: float = 0.0) -> list[Ring]:
    """Outlines of a mask [H, W], holes after the outline they lie in.

    `simplify` is the largest distance in pixels that a simplified outline may leave the exact one; at 0 filling all
    rings together by the even-odd rule, borders included (OpenCV's fillPoly), gives the mask back.
    """
    outlines, hierarchy = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings: list[Ring] = []
    index = 0 if len(outlines) else -1
    while index >= 0:
        rings.append(_ring(outlines[index], hole=False, simplify=simplify))
        child = int(hierarchy[0, index, 2])
        while child >= 0:
            rings.append(_ring(outlines[child], hole=True, simplify=simplify))
            child = int(hierarchy[0, child, 0])
        index = int(hierarchy[0, index, 0])
    return rings


def encode_png(mask: BoolArray) -> bytes:
    """A 1-bit gray PNG, white where the mask is."""
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, format="PNG", compress_level=4)
    return stream.getvalue()


def _ring(outline: NDArray[Any], *, hole: bool, simplify: float) -> Ring:
    if simplify > 0:
        outline = cv2.approxPolyDP(outline, simplify, True)
    return Ring(points=outline.reshape(-1, 2).astype(np.int32), hole=hole)


def _column_runs(mask: BoolArray) -> NDArray[np.int64]:
    """Run lengths in column-major order, starting with background.

    The mask stays row-major: changes along each column are found row by row, then put in column order, which is much
    faster than transposing megapixels.
    """
    height, width = mask.shape
    bits = mask.view(np.uint8)
    rows, columns = _nonzero(bits[1:] ^ bits[:-1])
    changes = columns * height + rows + 1
    heads = bits[0].copy()  # a column's head differs from the foot of the column before it
    heads[1:] ^= bits[-1, :-1]
    starts = np.flatnonzero(heads).astype(np.int64) * height
    changes = np.sort(np.concatenate([changes, starts]), kind="stable")
    edges = np.concatenate([np.zeros(1, np.int64), changes, np.array([height * width], np.int64)])
    runs: NDArray[np.int64] = np.diff(edges)
    return runs


def _nonzero(bits: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of each set byte; empty rows, most of a picture, are passed over."""
    filled = np.flatnonzero(bits.any(axis=1))
    if filled.size == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    first, last = int(filled[0]), int(filled[-1]) + 1
    width = bits.shape[1]
    flat = np.flatnonzero(bits[first:last].reshape(-1).view(np.bool_)).astype(np.int64)
    rows = flat // width
    return rows + first, flat - rows * width


def _compress(runs: NDArray[np.int64]) -> str:
    """COCO's string of run lengths.

    From the fourth run on it holds the difference to the run two before; numbers go in groups of 5 bits, low ones
    first, with bit 6 for "more follows" and an offset of 48.
    """
    values = runs.copy()
    values[3:] -= runs[1:-2]
    groups: list[NDArray[np.int64]] = []
    used: list[BoolArray] = []
    going = np.ones(values.shape, dtype=np.bool_)
    while going.any():
        low = values & 0x1F
        values = values >> 5
        more = np.where(low & 0x10, values != -1, values != 0) & going
        groups.append(low | np.where(more, 0x20, 0))
        used.append(going)
        going = more
    table = np.stack(groups, axis=1)
    chosen = np.stack(used, axis=1)
    return (table[chosen] + 48).astype(np.uint8).tobytes().decode("ascii")
