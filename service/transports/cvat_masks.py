"""Masks in CVAT's forms: the whole frame as rows of 0 and 1, run lengths of a crop, and a detector's flat crop."""

from typing import Any

import numpy as np

from service.core.encodings import encode_polygons
from service.core.masks import mask_box
from service.core.types import BoolArray, UInt8Array


def frame_json(mask: BoolArray) -> bytes:
    """JSON of a mask [H, W] as a list of rows, written at once: making a list of Python numbers takes far longer."""
    height, width = mask.shape
    text: UInt8Array = np.full((height, 2 * width + 2), ord(","), dtype=np.uint8)
    text[:, 0] = ord("[")
    text[:, 1:-1:2] = mask.view(np.uint8) + ord("0")
    text[:, -2] = ord("]")
    return b"[" + text.tobytes()[:-1] + b"]"


def crop_runs(mask: BoolArray) -> list[int]:
    """Run lengths of the mask's crop, row by row, background first, then left, top, right, bottom (inclusive)."""
    left, top, right, bottom = _crop(mask)
    flat = mask[top:bottom, left:right].ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = np.concatenate([[0] if flat[0] else [], [0], edges, [flat.size]]).astype(np.int64)
    return [*np.diff(bounds).tolist(), left, top, right - 1, bottom - 1]


def flat_crop(mask: BoolArray) -> list[int]:
    """The crop's pixels, row by row, then left, top, right, bottom (inclusive)."""
    left, top, right, bottom = _crop(mask)
    return [*mask[top:bottom, left:right].view(np.uint8).ravel().tolist(), left, top, right - 1, bottom - 1]


def largest_outline(mask: BoolArray) -> list[float]:
    """The longest outline as x, y, x, y ..., for projects that turn masks into polygons; empty when it has no area."""
    rings: list[Any] = [ring.points for ring in encode_polygons(mask, simplify=1.0) if not ring.hole]
    longest = max(rings, key=len, default=np.zeros((0, 2)))
    return [float(value) for value in longest.ravel()] if len(longest) >= 3 else []


def _crop(mask: BoolArray) -> tuple[int, int, int, int]:
    """The mask's box (half-open), one pixel of background when it is empty."""
    box = mask_box(mask)
    if box.x2 <= box.x1:
        return 0, 0, 1, 1
    return int(box.x1), int(box.y1), int(box.x2), int(box.y2)
