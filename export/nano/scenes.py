"""Compose labelled scenes from cut-outs: the masks are exact because we place every object ourselves."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from export.nano.cutouts import Cutout, load_cutouts, read_cutout
from export.nano.ingredients import OPENMOJI
from export.nano.textures import Rng, UInt8Image, colour, fractal_noise, load_photographs, sample_texture

UNIT_SIZE = 384
"""Sides of objects are given for scenes of this size."""
SCENE_SIZE = 512
OPAQUE = 0.5


@dataclass(frozen=True, slots=True)
class Scene:
    """RGB image [S, S, 3] and the visible object of each pixel [S, S]: 0 background, else 1 + position in `names`."""

    image: UInt8Image
    labels: UInt8Image
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hardship:
    """What training scenes have more of than the measured sets: the shares that photographs taught us to ask for."""

    camouflaged: float = 0.0
    """Objects drawn towards the colours around them."""
    dominant: float = 0.3
    """Scenes with an object as large as the scene."""
    assembled: float = 0.0
    """Objects put together from parts that differ in shape and surface: a click on one part means the whole."""
    many_pieces: float = 0.0
    """Surfaces of up to five pieces: clothes, plumage, storeys."""


TRAINING = Hardship(camouflaged=0.15, dominant=0.5, assembled=0.2, many_pieces=0.35)


@dataclass(frozen=True, slots=True)
class Composer:
    """Where scenes take their objects and surfaces from."""

    work: Path
    cutouts: list[Cutout]
    photographs: list[UInt8Image] = field(repr=False)
    hardship: Hardship = Hardship()

    def compose(self, rng: Rng, size: int) -> Scene:
        """One scene; equal generators give equal scenes."""
        image = sample_texture(rng, self.photographs, size, photograph=0.75).astype(np.float32)
        labels = np.zeros((size, size), np.uint8)
        names = []
        for sprite, name, (x, y) in self._objects(rng, size):
            if rng.random() < self.hardship.camouflaged:
                _camouflage(rng, sprite, image)
            if rng.random() < 0.4:
                _shadow(rng, image, sprite[..., 3], (x, y))
            _paste(image, labels, sprite, (x, y), label=len(names) + 1)
            names.append(name)
        return Scene(_photograph(rng, image), labels, tuple(names))

    def grid(self, rng: Rng, cutouts: list[Cutout], size: int, *, columns: int) -> tuple[UInt8Image, NDArray[np.bool_]]:
        """Given objects, whole, side by side on a surface, and a mask each [N, S, S]: what recognition learns from."""
        image = sample_texture(rng, self.photographs, size, photograph=0.65).astype(np.float32)
        labels = np.zeros((size, size), np.uint8)
        cell = size // columns
        for index, cutout in enumerate(cutouts):
            sprite, _ = self._sprite(rng, int(cell * rng.uniform(0.45, 0.9)), cutout)
            left, top = index % columns * cell, index // columns * cell
            y, x = (int(rng.uniform(0, max(cell - side, 1))) for side in sprite.shape[:2])
            _paste(image, labels, sprite, (left + x, top + y), label=index + 1)
        return _photograph(rng, image), np.stack([labels == index + 1 for index in range(len(cutouts))])

    def _objects(self, rng: Rng, size: int) -> list[tuple[NDArray[np.float32], str, tuple[int, int]]]:
        """Sprites with their names and top-left corners, in the order of pasting."""
        unit = size / UNIT_SIZE
        if rng.random() < 0.25:
            return self._look_alikes(rng, size, extent=int(rng.uniform(36, 95) * unit))
        placed = []
        dominant = rng.random() < self.hardship.dominant
        for index in range(rng.integers(2, 8)):
            extent = int(np.exp(rng.uniform(np.log(34), np.log(350))) * unit)
            if index == 0 and dominant:
                extent = int(rng.uniform(260, 430) * unit)
            sprite, name = self._sprite(rng, extent, self._pick(rng))
            x, y = (int(rng.uniform(-0.2 * extent, size - 0.8 * extent)) for _ in range(2))
            placed.append((sprite, name, (x, y)))
        return sorted(placed, key=lambda item: -item[0].shape[0] * item[0].shape[1] * rng.uniform(0.5, 1.5))

    def _look_alikes(
        self, rng: Rng, size: int, *, extent: int
    ) -> list[tuple[NDArray[np.float32], str, tuple[int, int]]]:
        """5-13 of one kind, half the time side by side with narrow gaps: clicks have to stay on one instance."""
        count, cutout = int(rng.integers(5, 14)), self._pick(rng)
        columns = max(2, min(count, int(size / (extent * 1.05))))
        spacing, in_rows = extent * rng.uniform(0.92, 1.12), rng.random() < 0.6
        origin = rng.uniform(0, max(size - columns * spacing, 1), 2)
        varied = rng.random() < 0.5
        look = int(rng.integers(2**31))
        placed = []
        for index in range(count):
            style = rng if varied else np.random.default_rng(look)
            sprite, name = self._sprite(style, extent, cutout)
            corner = origin + spacing * np.array([index % columns, index // columns]) + rng.normal(0, 1.5, 2)
            if not in_rows:
                corner = rng.uniform(-0.1 * extent, size - 0.9 * extent, 2)
            placed.append((sprite, name, (int(corner[0]), int(corner[1]))))
        return placed

    def _pick(self, rng: Rng) -> Cutout | None:
        """A cut-out, or None for a plain shape or an assembly of them."""
        return None if rng.random() < 0.1 + self.hardship.assembled else self.cutouts[rng.integers(len(self.cutouts))]

    def _sprite(self, rng: Rng, extent: int, cutout: Cutout | None) -> tuple[NDArray[np.float32], str]:
        """RGBA in 0-255 / 0-1 with the longer side near `extent`, deformed, recoloured and perhaps textured."""
        if cutout is None and self.hardship.assembled and rng.random() < 2 / 3:
            return self._assembly(rng, extent), ""
        pixels = _shape(rng, extent) if cutout is None else read_cutout(self.work, cutout)
        sprite = _deform(rng, pixels, extent)
        height, width = sprite.shape[:2]
        if cutout is None or rng.random() < 0.3:
            surface = self._surface(rng, max(height, width))[:height, :width].astype(np.float32)
            share = rng.uniform(0.5, 1.0)
            sprite[..., :3] = share * surface + (1 - share) * sprite[..., :3]
        _light(rng, sprite)
        return sprite, "" if cutout is None else cutout.name

    def _assembly(self, rng: Rng, extent: int) -> NDArray[np.float32]:
        """Two to six parts, each grown onto one before it, under one light: a thing nobody has drawn."""
        canvas, owned = np.zeros((extent, extent, 4), np.float32), np.zeros((extent, extent), np.uint8)
        for index in range(int(rng.integers(2, 7))):
            side = int(extent * (rng.uniform(0.4, 0.65) if index == 0 else rng.uniform(0.12, 0.5)))
            part = _deform(rng, _shape(rng, max(side, 8)), max(side, 8))
            height, width = part.shape[:2]
            if rng.random() < 0.8:
                part[..., :3] = self._surface(rng, max(height, width))[:height, :width]
            centre = (extent / 2, extent / 2)
            if index > 0:
                places = np.flatnonzero(cv2.morphologyEx(owned, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)))
                place = int(places[rng.integers(len(places))]) if len(places) else 0
                centre = (place % extent, place // extent)
            _paste(canvas[..., :3], owned, part, (int(centre[0] - width / 2), int(centre[1] - height / 2)), label=1)
        canvas[..., 3] = owned
        left, top, width, height = cv2.boundingRect(owned)
        whole = np.ascontiguousarray(canvas[top : top + height, left : left + width])
        _light(rng, whole)
        return whole

    def _surface(self, rng: Rng, size: int) -> UInt8Image:
        """One texture, or several that meet along lines: things are rarely of one piece."""
        surface = sample_texture(rng, self.photographs, size)
        if self.hardship.many_pieces and rng.random() < self.hardship.many_pieces:
            pieces = _pieces(rng, size, count=int(rng.integers(2, 6)))
            for piece in range(1, int(pieces.max()) + 1):
                other = sample_texture(rng, self.photographs, size)
                surface = np.where((pieces == piece)[..., None], other, surface)
        elif rng.random() < 0.4:
            other = sample_texture(rng, self.photographs, size)
            border = fractal_noise(rng, size, roughness=0.35)
            surface = np.where((border > np.quantile(border, rng.uniform(0.25, 0.75)))[..., None], other, surface)
        return surface


def _camouflage(rng: Rng, sprite: NDArray[np.float32], image: NDArray[np.float32]) -> None:
    """Draw the object's colours towards those of its surroundings: edges in photographs are seldom strong."""
    share = rng.uniform(0.3, 0.75)
    around = cv2.resize(cv2.GaussianBlur(image, (0, 0), 3), sprite.shape[1::-1])[:, ::-1]
    sprite[..., :3] = (1 - share) * sprite[..., :3] + share * around * rng.uniform(0.8, 1.2)


def _light(rng: Rng, sprite: NDArray[np.float32]) -> None:
    """Half the time brighter at one corner than at another."""
    if rng.random() < 0.5:
        light = cv2.resize(rng.uniform(0.55, 1.3, (2, 2)).astype(np.float32), sprite.shape[1::-1])
        sprite[..., :3] *= light[..., None]


def _pieces(rng: Rng, size: int, *, count: int) -> NDArray[np.int64]:
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


def _shape(rng: Rng, extent: int) -> UInt8Image:
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


def _deform(rng: Rng, pixels: UInt8Image, extent: int) -> NDArray[np.float32]:
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


def _paste(
    image: NDArray[np.float32], labels: UInt8Image, sprite: NDArray[np.float32], corner: tuple[int, int], *, label: int
) -> None:
    rows, columns, own_rows, own_columns = _overlap(image.shape, sprite.shape, corner)
    part = sprite[own_rows, own_columns]
    alpha = part[..., 3:]
    image[rows, columns] = alpha * part[..., :3] + (1 - alpha) * image[rows, columns]
    labels[rows, columns][alpha[..., 0] > OPAQUE] = label


def _shadow(rng: Rng, image: NDArray[np.float32], alpha: NDArray[np.float32], corner: tuple[int, int]) -> None:
    pad = max(4, alpha.shape[0] // 6)
    soft = cv2.GaussianBlur(np.pad(alpha, pad), (0, 0), max(1.0, pad * rng.uniform(0.1, 0.5)))
    x, y = corner[0] - pad + int(rng.uniform(-0.6, 0.6) * pad), corner[1] - pad + int(rng.uniform(0, 0.8) * pad)
    rows, columns, own_rows, own_columns = _overlap(image.shape, soft.shape, (x, y))
    image[rows, columns] *= 1 - rng.uniform(0.2, 0.6) * soft[own_rows, own_columns][..., None]


def _photograph(rng: Rng, image: NDArray[np.float32]) -> UInt8Image:
    """What a camera adds: blur, exposure, noise."""
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.3))
    image = 255 * np.clip(image / 255, 0, 1) ** np.exp(rng.normal(0, 0.2))
    if rng.random() < 0.5:
        image = image + rng.standard_normal(image.shape[:2], np.float32)[..., None] * rng.uniform(1, 12)
    return np.clip(image, 0, 255).astype(np.uint8)


def composer(work: Path, split: str) -> Composer:
    """`train`: no held-out objects, no unseen style; `held_out`: held-out concepts; `unseen_style`: OpenMoji."""
    cutouts = load_cutouts(work)
    unseen = [c for c in cutouts if c.source == OPENMOJI.folder]
    seen = [c for c in cutouts if c.source != OPENMOJI.folder]
    chosen = {
        "train": [c for c in seen if not c.held_out],
        "held_out": [c for c in seen if c.held_out],
        "unseen_style": unseen,
    }[split]
    hardship = TRAINING if split == "train" else Hardship()
    return Composer(work, chosen, load_photographs(work, held_out=split != "train"), hardship)


def scene_paths(work: Path, split: str, index: int) -> tuple[Path, Path]:
    """Image and label file of one stored scene."""
    return work / "scenes" / split / f"{index:05d}.jpg", work / "scenes" / split / f"{index:05d}.png"


def read_scene(work: Path, split: str, index: int) -> Scene:
    """A scene stored by `prepare_scenes` (the image went through JPEG)."""
    picture, labels = scene_paths(work, split, index)
    image = cv2.cvtColor(cv2.imread(str(picture), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return Scene(image, cv2.imread(str(labels), cv2.IMREAD_UNCHANGED))


@dataclass(frozen=True, slots=True)
class _Writer:
    """Composes and stores one scene by its number; picklable, so that a pool can share it."""

    composer: Composer
    split: str
    size: int
    seed: int

    def __call__(self, index: int) -> None:
        picture, labels = scene_paths(self.composer.work, self.split, index)
        if labels.exists():
            return
        rng = np.random.default_rng([self.seed, index])
        scene = self.composer.compose(rng, self.size)
        quality = int(rng.integers(60, 97))
        cv2.imwrite(str(picture), cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
        cv2.imwrite(str(labels), scene.labels)


def prepare_scenes(work: Path, split: str, count: int, *, seed: int, processes: int) -> None:
    """Store `count` scenes of a split; those already there are kept."""
    scene_paths(work, split, 0)[0].parent.mkdir(parents=True, exist_ok=True)
    write = _Writer(composer(work, split), split, SCENE_SIZE, seed)
    spawn = get_context("spawn")  # a fork would inherit OpenCV's and OpenEXR's locked thread pools
    with ProcessPoolExecutor(processes, spawn, cv2.setNumThreads, (1,)) as pool:
        for _ in tqdm(pool.map(write, range(count), chunksize=32), desc=f"scenes {split}", total=count, unit="scene"):
            pass
