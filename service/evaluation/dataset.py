"""An annotation file in COCO's or LVIS' format, as pictures with the objects to ask for."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from service.client.masks import BoolArray
from service.evaluation.average_precision import Verified
from service.evaluation.masks import decode_segmentation
from service.evaluation.splits import FREQUENCIES, plain_name, splits_of

Box: TypeAlias = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels."""


class InvalidDataSet(ValueError):
    """An annotation file, or an option about it, that cannot be evaluated."""


@dataclass(frozen=True, slots=True)
class Category:
    """A class; an answer is right when it is any of `names` (plain names, synonyms included)."""

    id: int
    name: str
    names: frozenset[str]
    split: str | None


@dataclass(frozen=True, slots=True)
class Target:
    """One annotated object; `point` is the place of the first click where the file gives one, `part` marks a part."""

    id: int
    category: Category
    size: tuple[int, int]
    segmentation: Any
    box: Box
    area: float
    crowd: bool
    part: bool
    point: tuple[float, float] | None

    def mask(self) -> BoolArray:
        """The annotated mask [H, W]."""
        return decode_segmentation(self.segmentation, self.size)


@dataclass(frozen=True, slots=True)
class Picture:
    """An image with the objects to ask for and, for average precision, all that is annotated and was looked for.

    `size` is (height, width).
    """

    id: int
    path: Path
    size: tuple[int, int]
    kind: str | None
    targets: tuple[Target, ...]
    annotated: tuple[Target, ...]
    verified: Verified | None


@dataclass(frozen=True, slots=True)
class DataSet:
    """What is evaluated."""

    categories: Mapping[int, Category]
    pictures: tuple[Picture, ...]

    def targets(self) -> dict[int, tuple[Picture, Target]]:
        """Each object to ask for, by its id, with its picture."""
        return {target.id: (picture, target) for picture in self.pictures for target in picture.targets}


def read_dataset(annotations: Path, images: Path) -> DataSet:
    """All pictures of the file; crowds are annotated but not asked for."""
    try:
        document = json.loads(annotations.read_text(encoding="utf-8"))
        categories = _categories(document["categories"])
        rows = document["images"]
        sizes = {row["id"]: (row["height"], row["width"]) for row in rows}
        targets: dict[int, list[Target]] = {number: [] for number in sizes}
        for row in document["annotations"]:
            targets[row["image_id"]].append(_target(row, categories, size=sizes[row["image_id"]]))
        pictures = [_picture(row, images, targets[row["id"]]) for row in rows]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InvalidDataSet(f"{annotations} is no COCO or LVIS file: {error!r}") from error
    return DataSet(categories, tuple(sorted(pictures, key=lambda picture: picture.id)))


def choose(dataset: DataSet, *, splits: Sequence[str], limit: int | None, detected: Collection[int] = ()) -> DataSet:
    """Only objects of the named splits, and of them `limit`, evenly spread over the file; pictures without any go.

    Of the whole file those stay whose ids are `detected`: what was detected where nothing is, is a false alarm.
    """
    known = {category.split for category in dataset.categories.values()} - {None}
    for split in splits:
        if split not in known:
            raise InvalidDataSet(
                f"no class is in the split {split!r}; there are: {', '.join(map(str, known)) or 'none'}"
            )
    numbers = [
        target.id
        for picture in dataset.pictures
        for target in picture.targets
        if not splits or target.category.split in splits
    ]
    if limit is not None and limit < len(numbers):
        numbers = [numbers[index] for index in np.linspace(0, len(numbers) - 1, limit).round().astype(int)]
    wanted = set(numbers)
    pictures = (
        replace(picture, targets=tuple(target for target in picture.targets if target.id in wanted))
        for picture in dataset.pictures
    )
    empty = set() if splits or limit is not None else set(detected)
    return DataSet(dataset.categories, tuple(item for item in pictures if item.targets or item.id in empty))


def clip_box(box: Box, size: tuple[int, int]) -> Box:
    """A box inside its picture of (height, width): annotated and detected ones reach out by fractions of a pixel."""
    x1, y1, x2, y2 = box
    return max(0.0, x1), max(0.0, y1), min(float(size[1]), x2), min(float(size[0]), y2)


def _categories(rows: Sequence[Mapping[str, Any]]) -> dict[int, Category]:
    splits = splits_of([row["name"] for row in rows])
    return {
        row["id"]: Category(
            id=row["id"],
            name=row["name"],
            names=frozenset(plain_name(name) for name in (row["name"], *row.get("synonyms", ()))),
            split=FREQUENCIES[row["frequency"]] if "frequency" in row else splits.get(plain_name(row["name"])),
        )
        for row in rows
    }


def _target(row: Mapping[str, Any], categories: Mapping[int, Category], *, size: tuple[int, int]) -> Target:
    x, y, width, height = row["bbox"]
    return Target(
        id=row["id"],
        category=categories[row["category_id"]],
        size=size,
        segmentation=row["segmentation"],
        box=clip_box((x, y, x + width, y + height), size),
        area=row["area"],
        crowd=bool(row.get("iscrowd", 0)),
        part=bool(row.get("part", False)),
        point=(row["point"][0], row["point"][1]) if "point" in row else None,
    )


def _picture(row: Mapping[str, Any], images: Path, annotated: Sequence[Target]) -> Picture:
    targets = tuple(target for target in annotated if not target.crowd)
    path = images / _file_name(row, images)
    size = (row["height"], row["width"])
    return Picture(row["id"], path, size, row.get("kind"), targets, tuple(annotated), _verified(row, annotated))


def _verified(row: Mapping[str, Any], annotated: Sequence[Target]) -> Verified | None:
    """LVIS tells which classes are surely absent; what is annotated is there."""
    if "neg_category_ids" not in row:
        return None
    there = {target.category.id for target in annotated}
    partial = frozenset(row.get("not_exhaustive_category_ids", ()))
    return Verified(frozenset(there | set(row["neg_category_ids"])), partial)


def _file_name(row: Mapping[str, Any], images: Path) -> str:
    """LVIS names a file by its address in COCO, ending in folder and name; the folder may be `images` itself."""
    if "file_name" in row:
        return str(row["file_name"])
    folder, name = row["coco_url"].split("/")[-2:]
    return f"{folder}/{name}" if (images / folder).is_dir() else name
