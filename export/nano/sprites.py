"""Sprites: shapes of single objects, RGBA with colours in 0-255 and alpha in 0-1, and how they are laid down."""

import cv2
import numpy as np
from numpy.typing import NDArray

from export.nano.textures import Rng, UInt8Image, colour, fractal_noise

OPAQUE = 0.5
SMALLEST_PART, LARGEST_PART = 0.004, 0.4
"""Shares of an object."""


def camouflage(rng: Rng, sprite: NDArray[np.float32], image: NDArray[np.float32]) -> None:
    """Draw the object's colours towards those of its surroundings: edges in photographs are seldom strong."""
    share = rng.uniform(0.3, 0.75)
    around = cv2.resize(cv2.GaussianBlur(image, (0, 0), 3), sprite.shape[1::-1])[:, ::-1]
    sprite[..., :3] = (1 - share) * sprite[..., :3] + share * around * rng.uniform(0.8, 1.2)


def light(rng: Rng, sprite: NDArray[np.float32]) -> None:
    """Half the time brighter at one corner than at another."""
    if rng.random() < 0.5:
        light = cv2.resize(rng.uniform(0.55, 1.3, (2, 2)).astype(np.float32), sprite.shape[1::-1])
        sprite[..., :3] *= light[..., None]


def pieces(rng: Rng, size: int, *, count: int) -> NDArray[np.int64]:
    """Number of the piece at each pixel: wavering bands at an angle, or cells around random seeds."""
    y, x = np.mgrid[:size, :size] / size
    if rng.random() < 0.5:
        angle, waver = rng.normal(np.pi / 2, 0.6), rng.uniform(0, 0.25)
        along = np.cos(angle) * x + np.sin(angle) * y + waver * fractal_noise(rng, size, roughness=0.35)
        return np.digitize(along, np.quantile(along, np.sort(rng.uniform(0.1, 0.9, count - 1))))
    seeds = rng.uniform(0, 1, (count, 2))
    bend = 0.2 * fractal_noise(rng, size, roughness=0.4)
    distance = [(x + bend - seed[0]) ** 2 + (y + bend - seed[1]) ** 2 for seed in seeds]
    return np.argmin(distance, axis=0)


def shape(rng: Rng, extent: int) -> UInt8Image:
    """A plain ellipse, rectangle, polygon or blob as RGBA."""
    mask = np.zeros((extent, extent), np.uint8)
    kind, centre = rng.integers(4), extent // 2
    if kind == 0:
        axes = (centre - 1, max(int(centre * rng.uniform(0.4, 1)) - 1, 1))
        cv2.ellipse(mask, (centre, centre), axes, 0, 0, 360, 255, -1)
    elif kind == 1:
        mask[int(extent * rng.uniform(0, 0.35)) :] = 255
    elif kind == 2:
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 9)))
        corners = centre + centre * rng.uniform(0.6, 1) * np.stack([np.cos(angles), np.sin(angles)], 1)
        cv2.fillPoly(mask, [corners.astype(np.int32)], 255)
    else:
        ramp = np.linspace(-1, 1, extent, dtype=np.float32)
        blob = fractal_noise(rng, extent, roughness=0.4) - (ramp[None] ** 2 + ramp[:, None] ** 2) * 0.6
        mask[blob > np.quantile(blob, 0.55)] = 255
    fill = np.broadcast_to(colour(rng).astype(np.uint8), (extent, extent, 3))
    return np.dstack([fill, mask])


def deform(rng: Rng, pixels: UInt8Image, extent: int) -> NDArray[np.float32]:
    """Scale to `extent`, mirror, rotate, shear; alpha in 0-1."""
    height, width = pixels.shape[:2]
    angle = rng.uniform(-np.pi, np.pi) if rng.random() < 0.2 else rng.normal(0, 0.25)
    scale = extent / max(height, width)
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    shear, stretch = rng.normal(0, 0.12), np.exp(rng.normal(0, 0.12))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = scale * turn @ np.array([[mirror * stretch, shear], [0, 1 / stretch]])
    corners = matrix @ np.array([[0, width, 0, width], [0, 0, height, height]], np.float64)
    low, high = corners.min(1), corners.max(1)
    out = np.maximum(np.ceil(high - low), 2).astype(int)
    premultiplied = pixels.astype(np.float32)
    premultiplied[..., 3] /= 255
    premultiplied[..., :3] *= premultiplied[..., 3:]
    if scale < 0.5:
        factor = 2 * scale
        premultiplied = cv2.resize(premultiplied, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        matrix = matrix / factor
    affine = np.column_stack([matrix, -low])
    sprite = cv2.warpAffine(premultiplied, affine, (int(out[0]), int(out[1])), flags=cv2.INTER_LINEAR)
    sprite[..., :3] /= np.maximum(sprite[..., 3:], 1e-3)
    return sprite


def _overlap(
    shape: tuple[int, ...], sprite: tuple[int, ...], corner: tuple[int, int]
) -> tuple[slice, slice, slice, slice]:
    x, y = corner
    top, left = max(y, 0), max(x, 0)
    bottom, right = max(min(y + sprite[0], shape[0]), top), max(min(x + sprite[1], shape[1]), left)
    return slice(top, bottom), slice(left, right), slice(top - y, bottom - y), slice(left - x, right - x)


def paste(
    image: NDArray[np.float32], labels: UInt8Image, sprite: NDArray[np.float32], corner: tuple[int, int], *, label: int
) -> None:
    """Blend the sprite into the image with its top left at (x, y), and own in `labels` what it covers."""
    rows, columns, own_rows, own_columns = _overlap(image.shape, sprite.shape, corner)
    part = sprite[own_rows, own_columns]
    alpha = part[..., 3:]
    image[rows, columns] = alpha * part[..., :3] + (1 - alpha) * image[rows, columns]
    labels[rows, columns][alpha[..., 0] > OPAQUE] = label


def drawn_parts(rng: Rng, sprite: NDArray[np.float32]) -> UInt8Image:
    """Compact places of one colour with what they enclose, as drawings have them; their numbers at each pixel."""
    solid = sprite[..., 3] > OPAQUE
    parts = np.zeros(solid.shape, np.uint8)
    places, colours = np.flatnonzero(solid), np.clip(sprite[..., :3], 0, 255).astype(np.uint8)
    for index in range(14 if len(places) else 0):
        y, x = divmod(int(places[rng.integers(len(places))]), solid.shape[1])
        barrier = np.pad(~solid, 1, constant_values=True).astype(np.uint8)
        step = (float(rng.uniform(2, 6)),) * 3
        cv2.floodFill(colours, barrier, (x, y), 0, step, step, 4 | cv2.FLOODFILL_MASK_ONLY | 2 << 8)
        region = cv2.morphologyEx(
            (barrier[1:-1, 1:-1] == 2).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)
        )
        outlines, _ = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(region, outlines, -1, 1, -1)
        area = np.count_nonzero(region)
        hull = sum(cv2.contourArea(cv2.convexHull(outline)) for outline in outlines)
        compact = area > 0.6 * hull
        if compact and SMALLEST_PART < area / len(places) < LARGEST_PART and not parts[region > 0].any():
            parts[region > 0] = index + 1
    return parts


def number(parts: UInt8Image, own: UInt8Image, alpha: NDArray[np.float32], corner: tuple[int, int]) -> None:
    """Note a pasted sprite's parts behind those already there; what it covers loses its own."""
    rows, columns, own_rows, own_columns = _overlap(parts.shape, own.shape, corner)
    placed = own[own_rows, own_columns]
    renumbered = np.where(placed > 0, placed + parts.max(), 0)
    covered = alpha[own_rows, own_columns] > OPAQUE
    parts[rows, columns][covered] = renumbered[covered]


def shadow(rng: Rng, image: NDArray[np.float32], alpha: NDArray[np.float32], corner: tuple[int, int]) -> None:
    """Darken the image beside and under a sprite of that alpha."""
    pad = max(4, alpha.shape[0] // 6)
    soft = cv2.GaussianBlur(np.pad(alpha, pad), (0, 0), max(1.0, pad * rng.uniform(0.1, 0.5)))
    x, y = corner[0] - pad + int(rng.uniform(-0.6, 0.6) * pad), corner[1] - pad + int(rng.uniform(0, 0.8) * pad)
    rows, columns, own_rows, own_columns = _overlap(image.shape, soft.shape, (x, y))
    image[rows, columns] *= 1 - rng.uniform(0.2, 0.6) * soft[own_rows, own_columns][..., None]
