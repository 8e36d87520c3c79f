"""Photographs of free packages with masks drawn by hand: what tells a part from a whole is not learnt from drawings.

`photographs.json` has a row a picture: package and path (ingredients.py fetches them), licence, author, size (height,
width), whether it is for `validation`, and the masks: name, kind, COCO's compressed run lengths at that size. Pictures
for validation choose among weights and are never trained on; all that show a concept which scenes hold out are such.
The evaluation set (tests/evaluation_set) shares no picture with either.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from export.nano import ingredients
from export.nano.ingredients import source_folder
from export.nano.textures import UInt8Image, read_panorama, read_photograph

INDEX = Path(__file__).with_name("photographs.json")
LONGEST_SIDE = 768
SMALLEST_CUTOUT = 48
"""Pixels of the longer side of what is cut out to be pasted into scenes."""
MOSTLY = 0.9
"""Share of a part that lies within the thing it belongs to; outlines by hand do not agree to the pixel."""
BoolMasks = NDArray[np.bool_]
Kind = Literal["thing", "part", "stuff"]


@dataclass(frozen=True, slots=True)
class Photograph:
    """RGB [H,W,3], masks [N,H,W] that may overlap, and what each is: a thing, a part of one, or sky, floor, wall."""

    image: UInt8Image
    masks: BoolMasks
    kinds: tuple[Kind, ...]


@dataclass(frozen=True, slots=True)
class PhotographedObject:
    """A thing cut out of a photograph: RGBA [H,W,4], and masks of its parts [P,H,W], which may overlap."""

    pixels: UInt8Image
    parts: BoolMasks


def load_annotated(work: Path, *, validation: bool = False) -> list[Photograph]:
    """Those to train on, or those to choose weights by; ValueError where a package holds another picture."""
    rows = json.loads(INDEX.read_text(encoding="utf-8"))
    packages = {package.name: package for package in ingredients.PACKAGES}
    return [
        _read(source_folder(work, packages[row["package"]]) / row["path"], row)
        for row in rows
        if row["validation"] == validation
    ]


def _read(path: Path, row: dict) -> Photograph:
    image = read_panorama(path) if path.suffix == ".js" else read_photograph(path)
    height, width = row["size"]
    if abs(image.shape[0] / image.shape[1] - height / width) > 0.01:
        raise ValueError(f"{path}: the masks are of a picture of {width} x {height}, this one has {image.shape[:2]}")
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    size = round(width * scale), round(height * scale)
    codes = [{"size": row["size"], "counts": item["counts"]} for item in row["masks"]]
    masks = [cv2.resize(coco_mask.decode(code), size, interpolation=cv2.INTER_NEAREST) for code in codes]
    shrunk = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return Photograph(shrunk, np.stack(masks).astype(np.bool_), tuple(item["kind"] for item in row["masks"]))


def cut_out(photograph: Photograph) -> list[PhotographedObject]:
    """Every thing of a photograph that is large enough, with those of its parts that lie within it."""
    found = []
    for mask, kind in zip(photograph.masks, photograph.kinds, strict=True):
        x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
        if kind != "thing" or max(width, height) < SMALLEST_CUTOUT:
            continue
        window = (slice(y, y + height), slice(x, x + width))
        parts = [
            part[window] & mask[window]
            for part, other in zip(photograph.masks, photograph.kinds, strict=True)
            if other == "part" and np.count_nonzero(part & mask) > MOSTLY * np.count_nonzero(part)
        ]
        alpha = cv2.GaussianBlur(mask[window].astype(np.float32), (0, 0), 0.7)
        pixels = np.dstack([photograph.image[window], (255 * alpha).astype(np.uint8)])
        found.append(PhotographedObject(pixels, np.array(parts, np.bool_).reshape(-1, height, width)))
    return found
