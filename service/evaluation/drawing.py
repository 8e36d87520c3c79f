"""Pictures of masks with outlines, clicks and captions, and sheets of them."""

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from service.client.masks import BoolArray

UInt8Array: TypeAlias = NDArray[np.uint8]
Colour: TypeAlias = tuple[int, int, int]
"""Blue, green, red."""
GREEN: Colour = (60, 170, 30)
MAGENTA: Colour = (200, 30, 230)
INK: Colour = (40, 40, 40)
_WHITE: Colour = (255, 255, 255)
TILE = (230, 260)  # height, width of a tile's picture
_LINE = 18  # height of a line of text


def write_picture(path: str, pixels: UInt8Array) -> None:
    """Write [H, W, 3] in BGR."""
    if not cv2.imwrite(path, pixels):
        raise OSError(f"{path} cannot be written")


def text(canvas: UInt8Array, words: str, place: tuple[int, int], *, size: float = 0.42, colour: Colour = INK) -> None:
    """Write a line with its baseline's left end at (x, y)."""
    cv2.putText(canvas, words, place, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def text_width(words: str, *, size: float = 0.42) -> int:
    """Pixels that a line takes."""
    return int(cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0])


def object_tile(
    image: UInt8Array,
    outlines: Sequence[tuple[BoolArray, Colour]],
    *,
    points: Sequence[tuple[float, float, int]] = (),
    box: tuple[float, float, float, float] | None = None,
    caption: Sequence[str] = (),
) -> UInt8Array:
    """The part of a picture [H, W, 3] around the masks, with their outlines and the prompt, over lines of text."""
    top, left, bottom, right = _view([mask for mask, _ in outlines], points, image.shape[:2])
    scale = min(TILE[0] / (bottom - top), TILE[1] / (right - left))
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    crop = cv2.resize(
        image[top:bottom, left:right], size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    for below, (mask, colour) in enumerate(outlines):
        part = cv2.resize(mask[top:bottom, left:right].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        edges, _ = cv2.findContours(part, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        width = 2 * (len(outlines) - below)  # the first stays visible where both run together
        cv2.drawContours(crop, edges, -1, colour, width, cv2.LINE_AA)
    if box is not None:
        corners = [(round((box[i] - left) * scale), round((box[i + 1] - top) * scale)) for i in (0, 2)]
        cv2.rectangle(crop, corners[0], corners[1], _WHITE, 1, cv2.LINE_AA)
    for x, y, label in points:
        centre = (round((x + 0.5 - left) * scale), round((y + 0.5 - top) * scale))
        cv2.circle(crop, centre, 5, _WHITE, -1, cv2.LINE_AA)
        cv2.circle(crop, centre, 4, GREEN if label else (40, 40, 230), -1, cv2.LINE_AA)
    tile = np.full((TILE[0] + _LINE * len(caption) + 8, TILE[1], 3), 255, np.uint8)
    tile[: crop.shape[0], : crop.shape[1]] = crop
    for line, words in enumerate(caption):
        text(tile, words[:40], (3, TILE[0] + _LINE * (line + 1) - 4))
    return tile


def sheet(rows: Sequence[tuple[str, Sequence[UInt8Array]]]) -> UInt8Array:
    """Tiles of equal size in titled rows; [H, W, 3]."""
    widest = max(len(tiles) for _, tiles in rows)
    strips = []
    for title, tiles in rows:
        strip = np.full((28, widest * (TILE[1] + 8), 3), 255, np.uint8)
        text(strip, title, (3, 20), size=0.55)
        gap = np.full((tiles[0].shape[0], 8, 3), 255, np.uint8)
        line = np.hstack([part for tile in tiles for part in (tile, gap)])
        filler = np.full((line.shape[0], strip.shape[1] - line.shape[1], 3), 255, np.uint8)
        strips += [strip, np.hstack([line, filler])]
    return np.vstack(strips)


def _view(
    masks: Sequence[BoolArray], points: Sequence[tuple[float, float, int]], size: tuple[int, ...]
) -> tuple[int, int, int, int]:
    """Top, left, bottom, right around masks and clicks, with a margin of a quarter, inside the picture."""
    together = np.any(masks, axis=0)
    for x, y, _ in points:
        together[min(int(y), size[0] - 1), min(int(x), size[1] - 1)] = True
    if not together.any():
        return 0, 0, size[0], size[1]
    x, y, width, height = cv2.boundingRect(together.astype(np.uint8))
    margin = max(16, max(width, height) // 4)
    return max(0, y - margin), max(0, x - margin), min(size[0], y + height + margin), min(size[1], x + width + margin)
