"""COCO's compressed RLE to a mask, and a mask's outlines, in NumPy alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
Int32Array = NDArray[np.int32]
_STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # right, down, left, up, as (x, y)


@dataclass(frozen=True, slots=True)
class Rle:
    """A mask as COCO's compressed run-length encoding; `size` is (height, width)."""

    size: tuple[int, int]
    counts: str


@dataclass(frozen=True, slots=True, eq=False)
class Polygon:
    """A closed outline [n, 2] of (x, y) along the edges of pixels; pixel (0, 0) has the corners (0, 0) and (1, 1).

    Outlines run clockwise as seen on screen, holes counter-clockwise.
    """

    points: Int32Array
    hole: bool


def decode_rle(rle: Rle) -> BoolArray:
    """The mask [H, W]."""
    height, width = rle.size
    runs = _runs(rle.counts.encode("ascii"))
    values = np.arange(len(runs)) % 2 == 1
    columns = np.repeat(values, runs).reshape(width, height)
    return np.ascontiguousarray(columns.T)


def find_polygons(mask: BoolArray) -> tuple[Polygon, ...]:
    """The outlines of a mask [H, W], exact to the pixel; parts that touch at a corner only are apart."""
    starts, directions = _edges(mask)
    following = _following(starts, directions, width=mask.shape[1] + 1).tolist()
    seen = bytearray(len(following))
    polygons = []
    for first in range(len(following)):
        if seen[first]:
            continue
        loop, edge = [], first
        while not seen[edge]:
            seen[edge] = 1
            loop.append(edge)
            edge = following[edge]
        polygons.append(_polygon(starts[loop], directions[loop], width=mask.shape[1] + 1))
    return tuple(polygons)


def _runs(text: bytes) -> NDArray[np.int64]:
    """Run lengths: numbers in groups of 5 bits, from the third on given as the step from the last but one."""
    groups = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((groups & 0x20) == 0)
    firsts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - firsts + 1
    shifts = 5 * (np.arange(len(groups)) - np.repeat(firsts, lengths))
    numbers = np.add.reduceat((groups & 0x1F) << shifts, firsts)
    numbers -= np.where(groups[ends] & 0x10, 1 << (5 * lengths), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def _edges(mask: BoolArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pixel edges between mask and rest, mask to the right of their way: start vertex and direction, in order."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    neighbours = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])  # above, right, below, left
    corners = ((0, 0), (1, 0), (1, 1), (0, 1))  # (x, y) of where each edge of a pixel starts
    starts, directions = [], []
    for direction, (neighbour, (x, y)) in enumerate(zip(neighbours, corners, strict=True)):
        rows, columns = np.nonzero(inside & ~neighbour)
        starts.append((rows + y) * (mask.shape[1] + 1) + columns + x)
        directions.append(np.full(len(rows), direction))
    keys = np.sort(np.concatenate(starts) * 4 + np.concatenate(directions))
    return keys // 4, keys % 4


def _following(starts: NDArray[np.int64], directions: NDArray[np.int64], *, width: int) -> NDArray[np.int64]:
    """The edge after each edge; where two start at one vertex, the one that turns right stays with its pixel."""
    ends = starts + _STEPS[directions] @ np.array([1, width])
    candidates = np.searchsorted(starts, ends)
    two = np.append(starts, -1)[candidates + 1] == ends
    right = directions[candidates] == (directions + 1) % 4
    following: NDArray[np.int64] = candidates + (two & ~right)
    return following


def _polygon(starts: NDArray[np.int64], directions: NDArray[np.int64], *, width: int) -> Polygon:
    corners = starts[directions != np.roll(directions, 1)]
    points = np.stack([corners % width, corners // width], axis=1)
    x, y = points[:, 0], points[:, 1]
    area = np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)
    return Polygon(points=points.astype(np.int32), hole=bool(area < 0))
