"""Simulated users: crops of scenes with a first prompt for some objects, and the clicks that correct a wrong mask."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from export.nano.photographs import Kind, Photograph, load_annotated, window
from export.nano.scenes import Scene, read_scene
from export.nano.textures import Rng, UInt8Image

SLOTS = 6
"""Two box corners and four clicks."""
STRIDE = 4
BoolMask = NDArray[np.bool_]


class Batch(NamedTuple):
    """image uint8 [B,S,S,3], valid size [B,2], target [B,N,S/4,S/4] (share of a cell), coords, labels [B,N,SLOTS]."""

    image: Tensor
    valid_size: Tensor
    target: Tensor
    coords: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True)
class PromptSettings:
    """How users behave."""

    per_image: int = 6
    boxes: float = 0.4
    box_jitter: float = 0.05
    clicks_beside_box: float = 0.2
    background: float = 0.02
    parts: float = 0.15
    """Prompts on scenes that mean a part of an object, where there are parts."""
    photographed_parts: float = 0.3
    stuff: float = 0.1
    """Prompts on photographs that mean a part, and sky, floor or wall."""
    off_centre: float = 0.4
    part_off_centre: float = 0.1
    """Clicks that are not in the middle. Who means a part clicks its middle; elsewhere the whole is likelier."""
    photographs: float = 0.4
    """Pictures that are photographs, not scenes."""
    smallest_object: int = 80
    """Pixels of the crop; below it a target at a quarter of the resolution means little."""


class PromptStream(IterableDataset[Batch]):
    """Endless batches; number k depends on the seed and k only, so a run can be resumed at any step."""

    def __init__(self, work: Path, scenes: int, *, seed: int, first: int, sizes: "BatchSizes") -> None:
        """`first` is the number of the first batch."""
        self.work, self.scenes, self.seed, self.first, self.sizes = work, scenes, seed, first, sizes
        self.settings = PromptSettings()

    @cached_property
    def photographs(self) -> list[Photograph]:
        """Read by the process that needs them."""
        return load_annotated(self.work)

    def __iter__(self) -> Iterator[Batch]:
        """Batches in order; several workers take turns."""
        cv2.setNumThreads(1)
        worker = get_worker_info()
        start, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        number = self.first + start
        while True:
            yield self.batch(number)
            number += stride

    def batch(self, number: int) -> Batch:
        """Batch number `number`."""
        rng = np.random.default_rng([self.seed, number])
        images, size = self.sizes.of(number)
        samples = [self._sample(rng, size) for _ in range(images)]
        return Batch(*(torch.from_numpy(np.stack(column)) for column in zip(*samples, strict=True)))

    def _sample(self, rng: Rng, size: int) -> "Sample":
        if rng.random() < self.settings.photographs:
            photograph = self.photographs[rng.integers(len(self.photographs))]
            return prompted_photograph(rng, photograph, size=size, settings=self.settings)
        scene = read_scene(self.work, "train", int(rng.integers(self.scenes)))
        return prompted(rng, scene, size=size, settings=self.settings)


@dataclass(frozen=True, slots=True)
class BatchSizes:
    """Small crops for most of the run, the full input size at its end."""

    large_from: int
    small: tuple[int, int] = (8, 256)
    large: tuple[int, int] = (2, 512)

    def of(self, number: int) -> tuple[int, int]:
        """(images, side in pixels) of a batch."""
        return self.large if number >= self.large_from else self.small


Sample = tuple[UInt8Image, NDArray[np.int32], NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]


def prompted(rng: Rng, scene: Scene, *, size: int, settings: PromptSettings) -> Sample:
    """A random crop of a scene with first prompts, one row of `Batch`."""
    image, labels, parts = _crop(rng, scene, size)
    valid = _valid_size(rng, size)
    for numbers in (labels, parts):
        numbers[valid[0] :], numbers[:, valid[1] :] = 0, 0
    objects, pieces = (_shuffled(rng, numbers, settings.smallest_object) for numbers in (labels, parts))
    targets, coords, kinds = [], [], []
    for index in range(settings.per_image):
        part = len(pieces) > 0 and rng.random() < settings.parts
        if part:
            mask = parts == pieces[index % len(pieces)]
        elif len(objects) == 0 or rng.random() < settings.background:
            mask = _background(rng, labels, valid)
        else:
            mask = labels == objects[index % len(objects)]
        off_centre = settings.part_off_centre if part else settings.off_centre
        place, kind = first_prompt(rng, mask, settings, off_centre=off_centre)
        targets.append(_quarter(mask))
        coords.append(place)
        kinds.append(kind)
    return recolour(rng, image), valid, np.stack(targets), np.stack(coords), np.stack(kinds)


def prompted_photograph(rng: Rng, photograph: Photograph, *, size: int, settings: PromptSettings) -> Sample:
    """A turned and stretched window of a photograph, letterboxed, with first prompts; one row of `Batch`."""
    while True:
        image, masks, valid = window(rng, photograph, size, around=_choose(rng, photograph.kinds, settings))
        large = np.count_nonzero(masks, axis=(1, 2)) >= settings.smallest_object
        if large.any():
            break
    kinds = [kind for kind, usable in zip(photograph.kinds, large, strict=True) if usable]
    masks = masks[large]
    areas = np.count_nonzero(masks, axis=(1, 2))
    targets, coords, labels = [], [], []
    for _ in range(settings.per_image):
        index = _choose(rng, kinds, settings)
        off_centre = settings.part_off_centre if kinds[index] == "part" else settings.off_centre
        smaller = masks[areas < areas[index]].any(0)
        place, label = first_prompt(rng, masks[index], settings, off_centre=off_centre, beside=smaller)
        targets.append(_quarter(masks[index]))
        coords.append(place)
        labels.append(label)
    return recolour(rng, image), valid, np.stack(targets), np.stack(coords), np.stack(labels)


def _choose(rng: Rng, kinds: Sequence[Kind], settings: PromptSettings) -> int:
    """Position of what is meant: things most often, parts and stuff as often as the settings say."""
    parts, stuff = settings.photographed_parts, settings.stuff
    weight = {"thing": 1 - parts - stuff, "part": parts, "stuff": stuff}
    share = np.array([weight[kind] / kinds.count(kind) for kind in kinds])
    return int(rng.choice(len(kinds), p=share / share.sum()))


def _shuffled(rng: Rng, numbers: UInt8Image, smallest: int) -> NDArray[np.int64]:
    """The numbers of at least `smallest` pixels, without 0."""
    counts = np.bincount(numbers.reshape(-1), minlength=2)
    return rng.permutation(np.flatnonzero(counts[1:] >= smallest) + 1)


def _crop(rng: Rng, scene: Scene, size: int) -> tuple[UInt8Image, UInt8Image, UInt8Image]:
    side = scene.image.shape[0]
    extent = int(rng.uniform(0.5, 1.0) * side)
    y, x = rng.integers(side - extent + 1, size=2)
    window = (slice(y, y + extent), slice(x, x + extent))
    shrink = extent > size
    image = cv2.resize(scene.image[window], (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
    labels, parts = (
        cv2.resize(numbers[window], (size, size), interpolation=cv2.INTER_NEAREST)
        for numbers in (scene.labels, scene.parts)
    )
    if rng.random() < 0.5:
        return image[:, ::-1].copy(), labels[:, ::-1].copy(), parts[:, ::-1].copy()
    return image, labels, parts


def _valid_size(rng: Rng, size: int) -> NDArray[np.int32]:
    """Now and then the letterbox's padding, at the bottom or at the right."""
    valid = np.array([size, size], np.int32)
    if rng.random() < 0.3:
        valid[rng.integers(2)] = int(size * rng.uniform(0.5, 0.95))
    return valid


def recolour(rng: Rng, image: UInt8Image) -> UInt8Image:
    """Another exposure and white balance; now and then gray."""
    gain = rng.uniform(0.75, 1.25) * rng.uniform(0.9, 1.1, 3)
    changed = np.clip((image - 128.0) * gain + 128 + rng.uniform(-20, 20), 0, 255).astype(np.uint8)
    if rng.random() < 0.08:
        changed = np.repeat(changed.mean(2, keepdims=True).astype(np.uint8), 3, axis=2)
    return changed


def _background(rng: Rng, labels: UInt8Image, valid: NDArray[np.int32]) -> BoolMask:
    """The piece of background around a random pixel of it (everything when there is none)."""
    free = np.zeros(labels.shape, np.uint8)
    free[: valid[0], : valid[1]] = labels[: valid[0], : valid[1]] == 0
    _, pieces = cv2.connectedComponents(free, connectivity=4)
    places = np.flatnonzero(free)
    if len(places) == 0:
        return np.ones(labels.shape, np.bool_)
    return pieces == pieces.reshape(-1)[places[rng.integers(len(places))]]


def _quarter(mask: BoolMask) -> NDArray[np.float32]:
    side = mask.shape[0] // STRIDE
    return mask.reshape(side, STRIDE, side, STRIDE).mean((1, 3), dtype=np.float32)


def first_prompt(
    rng: Rng, mask: BoolMask, settings: PromptSettings, *, off_centre: float, beside: BoolMask | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A click or a jittered box (sometimes both) on a mask: coords [SLOTS, 2], labels [SLOTS].

    Who means the whole clicks `beside` its parts, if there is room: a click on the eye means the eye.
    """
    coords, labels = np.zeros((SLOTS, 2), np.float32), np.full(SLOTS, -1, np.int64)
    boxed = rng.random() < settings.boxes
    if boxed:
        x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
        jitter = rng.normal(0, settings.box_jitter, 4) * (width, height, width, height)
        corners = np.array([x, y, x + width, y + height]) + jitter
        coords[:2] = np.clip(corners, 0, mask.shape[0]).reshape(2, 2) - 0.5
        labels[:2] = 2, 3
    if not boxed or rng.random() < settings.clicks_beside_box:
        clickable = mask if beside is None or not (mask & ~beside).any() else mask & ~beside
        coords[2], labels[2] = click_inside(clickable, rng=rng if rng.random() < off_centre else None), 1
    return coords, labels


def click_inside(mask: BoolMask, *, rng: Rng | None = None) -> NDArray[np.float32]:
    """(x, y) of a click: the deepest pixel; with a generator, any pixel that is not at the very edge."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    if rng is not None:
        places = np.flatnonzero(depth > 0.2 * depth.max())
        place = int(places[rng.integers(len(places))])
    else:
        place = int(depth.argmax())
    return np.array([place % mask.shape[1], place // mask.shape[1]], np.float32)


def correct(
    logits: NDArray[np.float32], target: NDArray[np.float32], coords: NDArray[np.float32], labels: NDArray[np.int64]
) -> None:
    """Fill each prompt's next free slot with a click into the deepest wrong part; coords and labels change in place."""
    wrong = (logits > 0) != (target > 0.5)
    for index in np.ndindex(wrong.shape[:2]):
        free = np.flatnonzero(labels[index][2:] < 0)
        if len(free) == 0 or not wrong[index].any():
            continue
        x, y = click_inside(wrong[index]).astype(int)
        slot = 2 + free[0]
        coords[index][slot] = (x * STRIDE + (STRIDE - 1) / 2, y * STRIDE + (STRIDE - 1) / 2)
        labels[index][slot] = int(target[index][y, x] > 0.5)
