"""Backgrounds and surfaces: crops of CC0 / public-domain photographs, and procedural patterns that need no licence."""

import base64
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import OpenEXR
from numpy.typing import NDArray

from export.nano import ingredients
from export.nano.ingredients import source_folder

UInt8Image = NDArray[np.uint8]
Rng = np.random.Generator

SURFACES = ("brick.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "moon.png", "retina.jpg")
HELD_OUT_PANORAMAS = ("lobby", "park", "venice", "workshop")
HELD_OUT_GETTY = ("march-pastoral",)


def load_photographs(work: Path, *, held_out: bool) -> list[UInt8Image]:
    """Photographs to crop from; those of `held_out` appear in evaluation scenes only."""
    photographs = [] if held_out else [read_photograph(_surface(work, name)) for name in SURFACES]
    getty = [package for package in ingredients.GETTY if package.name.endswith(HELD_OUT_GETTY) == held_out]
    panoramas = sorted(source_folder(work, ingredients.SKIES).glob("package/hdri/*.js"))
    return [
        *photographs,
        *(read_photograph(source_folder(work, package) / "package/data/image.jpg") for package in getty),
        *(read_panorama(path) for path in panoramas if (path.name.split(".")[0] in HELD_OUT_PANORAMAS) == held_out),
    ]


def _surface(work: Path, name: str) -> Path:
    return source_folder(work, ingredients.PHOTOGRAPHS) / "skimage/data" / name


def read_photograph(path: Path) -> UInt8Image:
    """RGB [H, W, 3]."""
    return cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_panorama(path: Path) -> UInt8Image:
    """High-dynamic-range panorama, exposed on its median and gamma-coded."""
    encoded = path.read_text(encoding="ascii").split("base64,")[1].rstrip("';\n ")
    with tempfile.NamedTemporaryFile(suffix=".exr") as file:
        file.write(base64.b64decode(encoded))
        file.flush()
        light = np.maximum(OpenEXR.File(file.name).channels()["RGB"].pixels.astype(np.float32), 0)
    exposed = light * (0.2 / max(float(np.median(light)), 1e-4))
    return (np.clip(exposed, 0, 1) ** (1 / 2.2) * 255).astype(np.uint8)


def sample_texture(rng: Rng, photographs: list[UInt8Image], size: int, *, photograph: float = 0.55) -> UInt8Image:
    """A size x size x 3 surface, a photograph's crop with the given probability, else a random pattern."""
    if photographs and rng.random() < photograph:
        texture = _crop(rng, photographs[rng.integers(len(photographs))], size)
    else:
        texture = PATTERNS[rng.integers(len(PATTERNS))](rng, size)
    return _recolour(rng, texture)


def _crop(rng: Rng, photograph: UInt8Image, size: int) -> UInt8Image:
    extent = int(min(photograph.shape[:2]) * rng.uniform(0.35, 1.0))
    y, x = (int(rng.integers(limit - extent + 1)) for limit in photograph.shape[:2])
    crop = photograph[y : y + extent, x : x + extent]
    return cv2.resize(crop[:, ::-1] if rng.random() < 0.5 else crop, (size, size), interpolation=cv2.INTER_CUBIC)


def _recolour(rng: Rng, texture: UInt8Image) -> UInt8Image:
    gain, shift = rng.uniform(0.6, 1.3, (1, 1, 3)), rng.uniform(-25, 25)
    gain = gain * 0.5 + gain.mean() * 0.5
    return np.clip(texture * gain + shift, 0, 255).astype(np.uint8)


def colour(rng: Rng) -> NDArray[np.float32]:
    """One random RGB colour, 0-255."""
    return rng.uniform(0, 255, 3).astype(np.float32)


def fractal_noise(rng: Rng, size: int, *, roughness: float = 0.55) -> NDArray[np.float32]:
    """Sum of octaves of smooth noise, size x size, scaled to 0-1."""
    total = np.zeros((size, size), np.float32)
    for octave in range(1, 7):
        grid = rng.standard_normal((2**octave + 1, 2**octave + 1)).astype(np.float32)
        total += roughness**octave * cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
    total -= total.min()
    return total / max(float(total.max()), 1e-6)


def _blend(rng: Rng, weight: NDArray[np.float32]) -> UInt8Image:
    first, second = colour(rng), colour(rng)
    return (weight[..., None] * first + (1 - weight[..., None]) * second).astype(np.uint8)


def _plain(rng: Rng, size: int) -> UInt8Image:
    return np.broadcast_to(colour(rng).astype(np.uint8), (size, size, 3)).copy()


def _gradient(rng: Rng, size: int) -> UInt8Image:
    angle, ramp = rng.uniform(0, 2 * np.pi), np.linspace(-0.5, 0.5, size, dtype=np.float32)
    weight = np.cos(angle) * ramp[None] + np.sin(angle) * ramp[:, None]
    return _blend(rng, np.clip(weight / 1.4 + 0.5, 0, 1))


def _clouds(rng: Rng, size: int) -> UInt8Image:
    return _blend(rng, fractal_noise(rng, size, roughness=rng.uniform(0.4, 0.9)))


def _wood(rng: Rng, size: int) -> UInt8Image:
    rows = np.linspace(0, rng.uniform(4, 30), size, dtype=np.float32)[:, None]
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (rows + rng.uniform(0.5, 4) * fractal_noise(rng, size)))
    return _blend(rng, rings.astype(np.float32) if rng.random() < 0.5 else rings.T.astype(np.float32))


def _voronoi(rng: Rng, size: int) -> UInt8Image:
    seeds = np.ones((size, size), np.uint8)
    count = int(rng.integers(8, 120))
    seeds[rng.integers(size, size=count), rng.integers(size, size=count)] = 0
    distance, cells = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP)
    palette = colour(rng) + rng.uniform(-60, 60, (cells.max() + 1, 3))
    shade = 1 - 0.5 * distance / max(float(distance.max()), 1)
    return np.clip(palette[cells] * shade[..., None], 0, 255).astype(np.uint8)


def _bricks(rng: Rng, size: int) -> UInt8Image:
    height = int(rng.integers(14, 60))
    width, joint = int(height * rng.uniform(1, 3)), int(rng.integers(1, 4))
    y, x = np.mgrid[:size, :size]
    x = x + (y // height % 2) * (width // 2)
    tone = rng.uniform(0.7, 1.2, (size // height + 2, 2 * size // width + 3))[y // height, x // width]
    face = colour(rng) * tone[..., None] * (0.8 + 0.4 * fractal_noise(rng, size, roughness=0.8)[..., None])
    mortar = (y % height < joint) | (x % width < joint)
    return np.clip(np.where(mortar[..., None], colour(rng), face), 0, 255).astype(np.uint8)


def _stripes(rng: Rng, size: int) -> UInt8Image:
    y, x = np.mgrid[:size, :size]
    angle, period = rng.uniform(0, np.pi), rng.uniform(8, 80)
    wave = np.sin(2 * np.pi * (np.cos(angle) * x + np.sin(angle) * y) / period)
    return _blend(rng, np.clip(wave * rng.uniform(1, 6) + 0.5, 0, 1).astype(np.float32))


PATTERNS: tuple[Callable[[Rng, int], UInt8Image], ...] = (
    _plain, _gradient, _gradient, _clouds, _clouds, _wood, _voronoi, _bricks, _stripes,
)  # fmt: skip
