"""Photographs of free packages with masks drawn by hand: what tells a part from a whole is not learnt from drawings.

`photographs.json` has a row a picture: package and path (ingredients.py fetches them), licence, author, size (height,
width), whether it is for `validation`, and the masks: name, kind, the noun that a person would say (where there is a
common one), COCO's compressed run lengths at that size. Pictures for validation choose among weights and are never
trained on; all that show a concept which scenes hold out are such.
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
from export.nano.textures import Rng, UInt8Image, read_panorama, read_photograph

INDEX = Path(__file__).with_name("photographs.json")
LONGEST_SIDE = 768
SMALLEST_CUTOUT = 48
"""Pixels of the longer side of what is cut out to be pasted into scenes."""
SMALLEST_WINDOW = 60
"""Pixels of a photograph; a smaller window shows nothing but blur."""
MOSTLY = 0.9
"""Share of a part that lies within the thing it belongs to; outlines by hand do not agree to the pixel."""
BoolMasks = NDArray[np.bool_]
Kind = Literal["thing", "part", "stuff"]


@dataclass(frozen=True, slots=True)
class Photograph:
    """RGB [H,W,3], masks [N,H,W] that may overlap; of each its kind and, if it has a common one, its noun."""

    image: UInt8Image
    masks: BoolMasks
    kinds: tuple[Kind, ...]
    nouns: tuple[str | None, ...]


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
    kinds, nouns = (tuple(item.get(key) for item in row["masks"]) for key in ("kind", "noun"))
    return Photograph(shrunk, np.stack(masks).astype(np.bool_), kinds, nouns)


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


def window(
    rng: Rng, photograph: Photograph, size: int, *, around: int
) -> tuple[UInt8Image, NDArray[np.bool_], NDArray[np.int32]]:
    """Image [S,S,3], masks [N,S,S] and valid size, of a window that holds most of one mask."""
    height, width = photograph.image.shape[:2]
    x, y, across, down = cv2.boundingRect(photograph.masks[around].astype(np.uint8))
    extent = max(across, down, SMALLEST_WINDOW) * rng.uniform(1.0, 1.3)
    extent = float(np.exp(rng.uniform(np.log(extent), np.log(max(extent, height, width)))))
    ratio = np.exp(rng.uniform(np.log(0.6), np.log(1 / 0.6)))
    view = np.minimum(extent * np.array([min(1, ratio), min(1, 1 / ratio)]), (width, height))
    centre = np.array([x + across / 2, y + down / 2]) + rng.uniform(-0.3, 0.3, 2) * view
    centre = np.clip(centre, view / 2, np.maximum((width, height) - view / 2, view / 2))
    valid = np.maximum(view[::-1] * size / view.max() + 0.5, 1).astype(np.int32)
    angle, scale = rng.normal(0, 0.08), size / view.max()
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([mirror, 1.0])
    stretch = np.diag(np.exp(rng.normal(0, 0.06, 2)))
    matrix = scale * turn @ stretch
    affine = np.column_stack([matrix, valid[::-1] / 2 - matrix @ centre])
    out = (int(valid[1]), int(valid[0]))
    soft = cv2.GaussianBlur(photograph.image, (0, 0), 0.5 / scale) if scale < 0.7 else photograph.image
    view_of = {"M": affine, "dsize": out, "borderMode": cv2.BORDER_REFLECT_101}
    image = np.zeros((size, size, 3), np.uint8)
    image[: valid[0], : valid[1]] = cv2.warpAffine(soft, flags=cv2.INTER_LINEAR, **view_of)
    masks = np.zeros((len(photograph.masks), size, size), np.bool_)
    for target, mask in zip(masks, photograph.masks, strict=True):
        target[: valid[0], : valid[1]] = cv2.warpAffine(mask.astype(np.uint8), flags=cv2.INTER_NEAREST, **view_of) > 0
    return image, masks, valid
