"""Turn masks into the COCO file of the evaluation set, so that drawn and composed pictures are written by one rule."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

BoolArray = NDArray[np.bool_]
Kind = Literal["photograph", "composite"]
Row = dict[str, Any]

FOLDER = Path(__file__).parents[2] / "tests" / "evaluation_set"
ANNOTATIONS = FOLDER / "annotations.json"
FIRST_IMAGE_ID: dict[Kind, int] = {"photograph": 1, "composite": 101}
SYNONYMS = {
    "badge": ("patch", "emblem"),
    "coffee": ("espresso",),
    "flower": ("dahlia",),
    "pagoda": ("temple", "tower"),
    "parrot": ("macaw", "bird"),
    "person": ("woman", "man"),
    "space shuttle": ("rocket",),
}
LICENCES = {
    "CC0 1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "Public domain": "https://creativecommons.org/publicdomain/mark/1.0/",
    "No known copyright restrictions": "https://www.brooklynmuseum.org/opencollection/archives/image/51611",
    "CC BY 2.0": "https://creativecommons.org/licenses/by/2.0/",
    "Released for unrestricted use": "http://r0k.us/graphics/kodak/",
    "CC BY 4.0 and more permissive parts": "https://creativecommons.org/licenses/by/4.0/",
}


@dataclass(frozen=True, slots=True)
class Thing:
    """One annotated object: mask [h, w]; `polygons` [[x, y, x, y, ...]] where they alone give that mask."""

    category: str
    mask: BoolArray
    polygons: list[list[float]] | None = None
    part: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """An image in images/ with everything annotated on it; size is (height, width)."""

    file_name: str
    size: tuple[int, int]
    author: str
    source: str
    licence: str
    things: Sequence[Thing]


def fill(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> BoolArray:
    """Polygons (continuous pixel coordinates, as COCO's) to a mask [h, w]."""
    if not polygons:
        return np.zeros(size, np.bool_)
    merged = coco_mask.merge(coco_mask.frPyObjects([list(p) for p in polygons], *size))
    mask: BoolArray = coco_mask.decode(merged).astype(np.bool_)
    return mask


def write(pictures: Sequence[Picture], *, kind: Kind) -> None:
    """Replace all pictures of one kind in annotations.json; those of the other kind stay as they are."""
    images, annotations = _read_all_but(kind)
    for image_id, picture in enumerate(pictures, FIRST_IMAGE_ID[kind]):
        images.append(_image(picture, image_id, kind))
        annotations += _annotations(picture, image_id)
    categories = sorted({row["category_id"] for row in annotations})
    for row in annotations:
        row["category_id"] = categories.index(row["category_id"]) + 1
    document = {
        "info": {"description": "Photographs with masks drawn by hand, composites with exact masks", "version": "1"},
        "licenses": [{"id": i, "name": name, "url": url} for i, (name, url) in enumerate(LICENCES.items(), 1)],
        "categories": [
            {"id": i, "name": n, "synonyms": [n, *SYNONYMS.get(n, ())]} for i, n in enumerate(categories, 1)
        ],
        "images": sorted(images, key=lambda row: row["id"]),
        "annotations": sorted(annotations, key=lambda row: row["id"]),
    }
    ANNOTATIONS.write_text(_one_row_per_line(document), encoding="utf-8")


def _read_all_but(kind: Kind) -> tuple[list[Row], list[Row]]:
    """Images and annotations of the other kind, with the category's name for its id, which may change."""
    if not ANNOTATIONS.exists():
        return [], []
    old = json.loads(ANNOTATIONS.read_text(encoding="utf-8"))
    names = {row["id"]: row["name"] for row in old["categories"]}
    images = [row for row in old["images"] if row["kind"] != kind]
    kept = {row["id"] for row in images}
    annotations = [row for row in old["annotations"] if row["image_id"] in kept]
    return images, [{**row, "category_id": names[row["category_id"]]} for row in annotations]


def _image(picture: Picture, image_id: int, kind: Kind) -> Row:
    height, width = picture.size
    licence = list(LICENCES).index(picture.licence) + 1
    row = {"id": image_id, "file_name": picture.file_name, "width": width, "height": height, "kind": kind}
    return {**row, "license": licence, "author": picture.author, "source": picture.source}


def _annotations(picture: Picture, image_id: int) -> list[Row]:
    """COCO rows; the category is still its name here."""
    rows = []
    for position, thing in enumerate(picture.things):
        encoded = coco_mask.encode(np.asfortranarray(thing.mask, np.uint8))
        rle = {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}
        rows.append(
            {
                "id": image_id * 100 + position,
                "image_id": image_id,
                "category_id": thing.category,
                "iscrowd": 0,
                "part": thing.part,
                "area": int(thing.mask.sum()),
                "bbox": [float(value) for value in coco_mask.toBbox(encoded)],
                "point": _inner_point(thing, picture.things),
                "segmentation": thing.polygons or rle,
            }
        )
    return rows


def _inner_point(thing: Thing, things: Sequence[Thing]) -> list[int]:
    """(x, y) of the pixel deepest inside the mask and outside every smaller mask: a click there means this object."""
    smaller = [other.mask for other in things if other.mask.sum() < thing.mask.sum()]
    free = thing.mask & ~np.any(smaller, axis=0) if smaller else thing.mask
    depth = cv2.distanceTransform(np.pad(free, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return [int(x), int(y)]


def _one_row_per_line(document: Row) -> str:
    """JSON that diffs well: one image or annotation on each line."""
    parts = []
    for key, value in document.items():
        lines = ",\n".join(json.dumps(row) for row in value)
        parts.append(f"{json.dumps(key)}: " + (json.dumps(value) if isinstance(value, dict) else f"[\n{lines}\n]"))
    return "{\n" + ",\n".join(parts) + "\n}\n"
