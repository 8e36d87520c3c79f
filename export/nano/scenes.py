"""Compose labelled scenes from cut-outs: the masks are exact because we place every object ourselves."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from export.nano.cutouts import Cutout, load_cutouts, read_cutout
from export.nano.ingredients import OPENMOJI
from export.nano.photographs import PhotographedObject, cut_out, load_annotated
from export.nano.sprites import (
    LARGEST_PART,
    OPAQUE,
    camouflage,
    deform,
    drawn_parts,
    light,
    number,
    paste,
    pieces,
    shadow,
    shape,
)
from export.nano.textures import Rng, UInt8Image, fractal_noise, load_photographs, sample_texture

UNIT_SIZE = 384
"""Sides of objects are given for scenes of this size."""
SCENE_SIZE = 512


@dataclass(frozen=True, slots=True)
class Scene:
    """RGB image [S, S, 3] and the visible object of each pixel [S, S]: 0 background, else 1 + position in `names`."""

    image: UInt8Image
    labels: UInt8Image
    parts: UInt8Image
    """Number of the part at each pixel [S, S], 0 for none: eyes, badges, lids, what a click may mean instead."""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hardship:
    """What training scenes have more of than the measured sets: the shares that photographs taught us to ask for."""

    textured: float = 0.3
    """Drawings that wear another surface: the inside of a photographed thing has edges of its own."""
    camouflaged: float = 0.0
    """Objects drawn towards the colours around them."""
    dominant: float = 0.3
    """Scenes with an object as large as the scene."""
    assembled: float = 0.0
    """Objects put together from members that differ in shape and surface."""
    many_pieces: float = 0.0
    """Surfaces of up to five pieces: clothes, plumage, storeys."""
    parted: bool = False
    """Objects have parts that can be meant on their own."""
    photographed: float = 0.0
    """Objects cut out of photographs."""


TRAINING = Hardship(
    textured=0.6, camouflaged=0.2, dominant=0.5, assembled=0.25, many_pieces=0.7, parted=True, photographed=0.35
)


class Sprite(NamedTuple):
    """RGBA in 0-255 / 0-1, the number of the part at each pixel, and the object's name."""

    pixels: NDArray[np.float32]
    parts: UInt8Image
    name: str


@dataclass(frozen=True, slots=True)
class Composer:
    """Where scenes take their objects and surfaces from."""

    work: Path
    cutouts: list[Cutout]
    photographs: list[UInt8Image] = field(repr=False)
    hardship: Hardship = Hardship()
    photographed: list[PhotographedObject] = field(default_factory=list, repr=False)

    def compose(self, rng: Rng, size: int) -> Scene:
        """One scene; equal generators give equal scenes."""
        image = sample_texture(rng, self.photographs, size, photograph=0.75).astype(np.float32)
        labels, parts = np.zeros((size, size), np.uint8), np.zeros((size, size), np.uint8)
        names = []
        for sprite, corner in self._objects(rng, size):
            if rng.random() < self.hardship.camouflaged:
                camouflage(rng, sprite.pixels, image)
            if rng.random() < 0.4:
                shadow(rng, image, sprite.pixels[..., 3], corner)
            paste(image, labels, sprite.pixels, corner, label=len(names) + 1)
            number(parts, sprite.parts, sprite.pixels[..., 3], corner)
            names.append(sprite.name)
        return Scene(_photograph(rng, image), labels, parts, tuple(names))

    def grid(self, rng: Rng, cutouts: list[Cutout], size: int, *, columns: int) -> tuple[UInt8Image, NDArray[np.bool_]]:
        """Given objects, whole, side by side on a surface, and a mask each [N, S, S]: what recognition learns from."""
        image = sample_texture(rng, self.photographs, size, photograph=0.65).astype(np.float32)
        labels = np.zeros((size, size), np.uint8)
        cell = size // columns
        for index, cutout in enumerate(cutouts):
            sprite = self._sprite(rng, int(cell * rng.uniform(0.45, 0.9)), cutout).pixels
            left, top = index % columns * cell, index // columns * cell
            y, x = (int(rng.uniform(0, max(cell - side, 1))) for side in sprite.shape[:2])
            paste(image, labels, sprite, (left + x, top + y), label=index + 1)
        return _photograph(rng, image), np.stack([labels == index + 1 for index in range(len(cutouts))])

    def _objects(self, rng: Rng, size: int) -> list[tuple[Sprite, tuple[int, int]]]:
        """Sprites with their top-left corners, in the order of pasting."""
        unit = size / UNIT_SIZE
        if rng.random() < 0.25:
            return self._look_alikes(rng, size, extent=int(rng.uniform(36, 95) * unit))
        placed = []
        dominant = rng.random() < self.hardship.dominant
        for index in range(rng.integers(2, 8)):
            extent = int(np.exp(rng.uniform(np.log(34), np.log(350))) * unit)
            if index == 0 and dominant:
                extent = int(rng.uniform(260, 430) * unit)
            sprite = self._sprite(rng, extent, self._pick(rng))
            x, y = (int(rng.uniform(-0.2 * extent, size - 0.8 * extent)) for _ in range(2))
            placed.append((sprite, (x, y)))
        return sorted(placed, key=lambda item: -item[0].parts.size * rng.uniform(0.5, 1.5))

    def _look_alikes(self, rng: Rng, size: int, *, extent: int) -> list[tuple[Sprite, tuple[int, int]]]:
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
            sprite = self._sprite(style, extent, cutout)
            corner = origin + spacing * np.array([index % columns, index // columns]) + rng.normal(0, 1.5, 2)
            if not in_rows:
                corner = rng.uniform(-0.1 * extent, size - 0.9 * extent, 2)
            placed.append((sprite, (int(corner[0]), int(corner[1]))))
        return placed

    def _pick(self, rng: Rng) -> Cutout | PhotographedObject | None:
        """A photographed thing, a drawing, or None for a plain shape or an assembly of them."""
        if self.photographed and rng.random() < self.hardship.photographed:
            return self.photographed[rng.integers(len(self.photographed))]
        return None if rng.random() < 0.1 + self.hardship.assembled else self.cutouts[rng.integers(len(self.cutouts))]

    def _sprite(self, rng: Rng, extent: int, cutout: Cutout | PhotographedObject | None) -> Sprite:
        """The longer side near `extent`, deformed, recoloured and perhaps textured."""
        if isinstance(cutout, PhotographedObject):
            return self._photographed(rng, extent, cutout)
        if cutout is None and self.hardship.assembled and rng.random() < 2 / 3:
            return self._assembly(rng, extent)
        pixels = shape(rng, extent) if cutout is None else read_cutout(self.work, cutout)
        sprite = deform(rng, pixels, extent)
        height, width = sprite.shape[:2]
        if cutout is None or rng.random() < self.hardship.textured:
            surface = self._surface(rng, max(height, width))[:height, :width].astype(np.float32)
            share = rng.uniform(0.5, 1.0)
            sprite[..., :3] = share * surface + (1 - share) * sprite[..., :3]
            find_parts = self._patches
        else:
            find_parts = drawn_parts
        parts = find_parts(rng, sprite) if self.hardship.parted else np.zeros((height, width), np.uint8)
        light(rng, sprite)
        return Sprite(sprite, parts, "" if cutout is None else cutout.name)

    def _photographed(self, rng: Rng, extent: int, thing: PhotographedObject) -> Sprite:
        """A thing as it is, under another light; of parts that overlap, those that come first by chance."""
        look = int(rng.integers(2**31))
        sprite = deform(np.random.default_rng(look), thing.pixels, extent)
        parts = np.zeros(sprite.shape[:2], np.uint8)
        for index in rng.permutation(len(thing.parts)):
            alone = np.dstack([np.zeros_like(thing.pixels[..., :3]), 255 * thing.parts[index].astype(np.uint8)])
            place = deform(np.random.default_rng(look), alone, extent)[..., 3] > OPAQUE
            if self.hardship.parted and not parts[place].any():
                parts[place] = index + 1
        light(rng, sprite)
        return Sprite(sprite, parts, "")

    def _patches(self, rng: Rng, sprite: NDArray[np.float32]) -> UInt8Image:
        """Lay up to four small shapes on a textured sprite, half the time equal ones; their numbers at each pixel."""
        solid = sprite[..., 3] > OPAQUE
        parts = np.zeros(solid.shape, np.uint8)
        places = np.flatnonzero(solid)
        if len(places) == 0 or rng.random() < 0.4:
            return parts
        equal, look = rng.random() < 0.5, int(rng.integers(2**31))
        for index in range(int(rng.integers(1, 5))):
            style = np.random.default_rng(look) if equal else rng
            side = max(int(max(solid.shape) * np.exp(style.uniform(np.log(0.07), np.log(0.4)))), 6)
            patch = deform(style, shape(style, side), side)
            if style.random() < 0.6:
                patch[..., :3] = self._surface(style, max(patch.shape))[: patch.shape[0], : patch.shape[1]]
            place = int(places[rng.integers(len(places))])
            corner = (place % solid.shape[1] - patch.shape[1] // 2, place // solid.shape[1] - patch.shape[0] // 2)
            paste(sprite[..., :3], parts, patch, corner, label=index + 1)
        parts[~solid] = 0
        return parts

    def _assembly(self, rng: Rng, extent: int) -> Sprite:
        """Two to six parts, each grown onto one before it, under one light: a thing nobody has drawn."""
        canvas, owned = np.zeros((extent, extent, 4), np.float32), np.zeros((extent, extent), np.uint8)
        for index in range(int(rng.integers(2, 7))):
            side = int(extent * (rng.uniform(0.4, 0.65) if index == 0 else rng.uniform(0.12, 0.5)))
            part = deform(rng, shape(rng, max(side, 8)), max(side, 8))
            height, width = part.shape[:2]
            if rng.random() < 0.8:
                part[..., :3] = self._surface(rng, max(height, width))[:height, :width]
            centre = (extent / 2, extent / 2)
            if index > 0:
                places = np.flatnonzero(cv2.morphologyEx(owned, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)))
                place = int(places[rng.integers(len(places))]) if len(places) else 0
                centre = (place % extent, place // extent)
            corner = (int(centre[0] - width / 2), int(centre[1] - height / 2))
            paste(canvas[..., :3], owned, part, corner, label=index + 1)
        canvas[..., 3] = owned > 0
        left, top, width, height = cv2.boundingRect(owned)
        window = (slice(top, top + height), slice(left, left + width))
        whole, parts = np.ascontiguousarray(canvas[window]), owned[window].copy()
        light(rng, whole)
        sizes = np.bincount(parts.reshape(-1))
        parts[(sizes > LARGEST_PART * sizes[1:].sum())[parts]] = 0
        return Sprite(whole, parts, "")

    def _surface(self, rng: Rng, size: int) -> UInt8Image:
        """One texture, or several that meet along lines: things are rarely of one piece."""
        surface = sample_texture(rng, self.photographs, size)
        if self.hardship.many_pieces and rng.random() < self.hardship.many_pieces:
            numbers = pieces(rng, size, count=int(rng.integers(2, 6)))
            for piece in range(1, int(numbers.max()) + 1):
                other = sample_texture(rng, self.photographs, size)
                surface = np.where((numbers == piece)[..., None], other, surface)
        elif rng.random() < 0.4:
            other = sample_texture(rng, self.photographs, size)
            border = fractal_noise(rng, size, roughness=0.35)
            surface = np.where((border > np.quantile(border, rng.uniform(0.25, 0.75)))[..., None], other, surface)
        return surface


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
    photographs = load_photographs(work, held_out=split != "train")
    if split != "train":
        return Composer(work, chosen, photographs)
    photographed = [thing for photograph in load_annotated(work) for thing in cut_out(photograph)]
    return Composer(work, chosen, photographs, TRAINING, photographed)


def scene_paths(work: Path, split: str, index: int) -> tuple[Path, Path]:
    """Image, and objects and parts (red and green of a PNG), of one stored scene."""
    return work / "scenes" / split / f"{index:05d}.jpg", work / "scenes" / split / f"{index:05d}.png"


def read_scene(work: Path, split: str, index: int) -> Scene:
    """What `write_scene` stored (the image went through JPEG); ValueError for labels of a recipe without parts."""
    picture, labels = scene_paths(work, split, index)
    image = cv2.cvtColor(cv2.imread(str(picture), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    stored = cv2.imread(str(labels), cv2.IMREAD_UNCHANGED)
    if stored.ndim != 3:
        raise ValueError(f"{labels} is of an earlier recipe: delete {labels.parent} and run `prepare` again")
    _, parts, objects = cv2.split(stored)
    return Scene(image, objects, parts)


def write_scene(work: Path, split: str, index: int, scene: Scene, *, quality: int) -> None:
    """The labels last: they are the sign that a scene is complete."""
    picture, labels = scene_paths(work, split, index)
    cv2.imwrite(str(picture), cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    cv2.imwrite(str(labels), cv2.merge([np.zeros_like(scene.parts), scene.parts, scene.labels]))


@dataclass(frozen=True, slots=True)
class _Writer:
    """Composes and stores one scene by its number; picklable, so that a pool can share it."""

    composer: Composer
    split: str
    size: int
    seed: int

    def __call__(self, index: int) -> None:
        if scene_paths(self.composer.work, self.split, index)[1].exists():
            return
        rng = np.random.default_rng([self.seed, index])
        scene = self.composer.compose(rng, self.size)
        write_scene(self.composer.work, self.split, index, scene, quality=int(rng.integers(60, 97)))


def prepare_scenes(work: Path, split: str, count: int, *, seed: int, processes: int) -> None:
    """Store `count` scenes of a split; those already there are kept."""
    scene_paths(work, split, 0)[0].parent.mkdir(parents=True, exist_ok=True)
    write = _Writer(composer(work, split), split, SCENE_SIZE, seed)
    spawn = get_context("spawn")  # a fork would inherit OpenCV's and OpenEXR's locked thread pools
    with ProcessPoolExecutor(processes, spawn, cv2.setNumThreads, (1,)) as pool:
        for _ in tqdm(pool.map(write, range(count), chunksize=32), desc=f"scenes {split}", total=count, unit="scene"):
            pass
