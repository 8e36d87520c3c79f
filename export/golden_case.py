"""A golden folder: recorded answers of the official network, and what it takes to compare with them.

A folder holds, for each case NAME, NAME.json (prompts, boxes, masks, labels), NAME.npz (logits and features),
NAME_resized.png, optionally NAME_rois.npz; and for all cases classifier.npy, optionally text_classifier.npz.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from export.labels import Classifier, Float32Array, second_weights
from export.parity import Array

_UNUSED = -1
BoolArray = NDArray[np.bool_]


class GoldenError(Exception):
    """A golden folder lacks something the check needs."""


@dataclass(frozen=True)
class GoldenCase:
    """One image of a golden folder."""

    folder: Path
    name: str

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Prompts, boxes, masks and labels."""
        path = self.folder / f"{self.name}.json"
        if not path.is_file():
            raise GoldenError(f"{path}: no such file")
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return facts

    @cached_property
    def arrays(self) -> dict[str, Array]:
        """Logits and features."""
        return dict(np.load(self.folder / f"{self.name}.npz"))

    def image(self, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """The padded image [1,S,S,3] and its valid size [1,2]."""
        pixels = cv2.imread(str(self.folder / self.facts["resized_png"]), cv2.IMREAD_COLOR)
        if pixels is None:
            raise GoldenError(f"{self.facts['resized_png']} cannot be read")
        padded = np.zeros((1, size, size, 3), np.uint8)
        height, width = pixels.shape[:2]
        padded[0, :height, :width] = pixels[..., ::-1]
        return padded, np.array([[height, width]], np.int32)

    def prompts(self) -> tuple[Float32Array, NDArray[np.int32]]:
        """Every prompt in one batch [1,N,P,2], [1,N,P]; short prompts leave slots unused."""
        rows = []
        for case in self.facts["cases"]:
            points = [*case.get("points", [])]
            labels = [*case.get("labels", [])]
            if "box" in case:
                points += [case["box"][:2], case["box"][2:]]
                labels += [2, 3]
            rows.append((points, labels))
        slots = max(len(labels) for _, labels in rows)
        coords = np.zeros((1, len(rows), slots, 2), np.float32)
        kinds = np.full((1, len(rows), slots), _UNUSED, np.int32)
        for index, (points, labels) in enumerate(rows):
            coords[0, index, : len(points)] = points
            kinds[0, index, : len(labels)] = labels
        return coords, kinds

    def classifier(self) -> Classifier:
        """The recorded classifier with this image's base and novel classes."""
        embeddings = np.load(self.folder / "classifier.npy")
        weights = second_weights(len(embeddings), self.facts["base_classes"], self.facts["novel_classes"])
        return Classifier(embeddings, weights)


def full_mask(low_res: Float32Array, facts: dict[str, Any], *, size: int) -> BoolArray:
    """Logits [L,L] -> the mask at the original size, through the padded frame as the published inference does."""
    height, width = facts["resized_hw"]
    framed = cv2.resize(low_res, (size, size), interpolation=cv2.INTER_LINEAR)[:height, :width]
    original = cv2.resize(framed, facts["original_hw"][::-1], interpolation=cv2.INTER_LINEAR)
    mask: BoolArray = original > 0
    return mask


def iou(a: BoolArray, b: BoolArray) -> float:
    """Intersection over union; 1 for two empty masks."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def shrink(mask: BoolArray) -> BoolArray:
    """The mask without one pixel all around."""
    smaller: BoolArray = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0) > 0
    return smaller


def decode_rle(rle: dict[str, Any]) -> BoolArray:
    """COCO's compressed run lengths: letters of 5 bits, and from the third run on differences to two runs back."""
    runs: list[int] = []
    value = shift = 0
    for letter in rle["counts"].encode():
        bits = letter - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    height, width = rle["size"]
    colours = np.arange(len(runs)) % 2 == 1
    return np.repeat(colours, runs).reshape(width, height).T
