"""Annotated masks: COCO's polygons, compressed RLE and plain runs to pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.client.masks import BoolArray, Rle, decode_rle


def decode_segmentation(segmentation: Any, size: tuple[int, int]) -> BoolArray:
    """A COCO `segmentation` as a mask [H, W]; `size` is (height, width)."""
    if isinstance(segmentation, list):
        return fill_polygons(segmentation, size)
    if isinstance(segmentation["counts"], str):
        return decode_rle(Rle((segmentation["size"][0], segmentation["size"][1]), segmentation["counts"]))
    runs = np.asarray(segmentation["counts"])
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size[1], size[0])
    return np.ascontiguousarray(columns.T)


def fill_polygons(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> BoolArray:
    """The union of polygons [x, y, x, y, ...]; a pixel belongs to one when its centre lies inside (even-odd rule)."""
    mask = np.zeros(size, np.bool_)
    for polygon in polygons:
        mask |= _fill(np.asarray(polygon, np.float64).reshape(-1, 2), size)
    return mask


def _fill(corners: NDArray[np.float64], size: tuple[int, int]) -> BoolArray:
    """Each edge turns inside to outside from the first centre right of it, on every row whose centre it crosses."""
    height, width = size
    turns = np.zeros((height, width + 1), np.int32)
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        (x, top), (end_x, bottom) = (start, end) if start[1] <= end[1] else (end, start)
        rows = np.arange(max(0, _first_centre(top)), min(height, _first_centre(bottom)))
        if rows.size:
            crossings = x + (rows + 0.5 - top) * (end_x - x) / (bottom - top)
            turns[rows, np.clip(np.ceil(crossings - 0.5), 0, width).astype(np.int64)] += 1
    inside: BoolArray = np.cumsum(turns[:, :-1], axis=1) % 2 == 1
    return inside


def _first_centre(coordinate: float) -> int:
    """The first pixel whose centre is at or beyond a coordinate."""
    return int(np.ceil(coordinate - 0.5))
