"""Crafted LVIS files with detections, made by NumPy and pycocotools alone: the same everywhere for the same number."""

from typing import Any

import numpy as np
from pycocotools import mask as coco

SIZE = (120, 160)
FREQUENCIES = {1: "r", 2: "r", 3: "c", 4: "f", 5: "f", 6: "c"}
CROWDED = 3
"""The case whose first picture has more detections than LVIS counts."""
COUNT = 6


def case(number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An annotation file and results: rare to frequent classes, verified, absent, partly annotated and unknown ones."""
    rng = np.random.default_rng([5, number])
    images, annotations, results = [], [], []
    for image in range(1, 9):
        there = [int(category) for category in rng.permutation(5)[: int(rng.integers(0, 4))] + 1]
        absent = [category for category in range(1, 7) if category not in there and rng.random() < 0.4]
        partial = [category for category in there if rng.random() < 0.35]
        where = {"width": SIZE[1], "height": SIZE[0], "coco_url": f"http://host/val2017/{image}.jpg"}
        verified = {"neg_category_ids": absent, "not_exhaustive_category_ids": partial}
        images.append({"id": image, **where, **verified})
        true = [(category, _shape(rng)) for category in there for _ in range(int(rng.integers(1, 4)))]
        annotations += [_row(image, *item) for item in true]
        found = [(c, np.roll(m, rng.integers(-5, 6, 2), (0, 1))) for c, m in true for _ in range(int(rng.integers(3)))]
        alarms = 340 if (number, image) == (CROWDED, 1) else 4
        found += [(int(rng.integers(1, 7)), _shape(rng)) for _ in range(alarms)]
        results += [{**_row(image, *item), "score": round(float(rng.random()), 2)} for item in found]
    document = {
        "images": images,
        "categories": [
            {"id": number, "name": f"class_{number}", "synonyms": [f"class_{number}"], "frequency": frequency}
            for number, frequency in FREQUENCIES.items()
        ],
        "annotations": [{"id": number, **row} for number, row in enumerate(annotations, 1)],
    }
    for row in results:
        for what_a_detector_does_not_say in ("area", "bbox"):
            row.pop(what_a_detector_does_not_say)
    return document, results


def _shape(rng: np.random.Generator) -> Any:
    """A rectangle or an ellipse [H, W], from small to large by COCO's sizes."""
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    y, x = int(rng.integers(10, 110)), int(rng.integers(10, 150))
    high, wide = (int(side) for side in rng.integers(5, 75, 2))
    if rng.random() < 0.5:
        return (abs(rows - y) <= high) & (abs(columns - x) <= wide)
    return (rows - y) ** 2 * wide**2 + (columns - x) ** 2 * high**2 <= (high * wide) ** 2


def _row(image: int, category: int, mask: Any) -> dict[str, Any]:
    runs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    area, box = float(coco.area(runs)), [float(side) for side in coco.toBbox(runs)]
    segmentation = {"size": list(SIZE), "counts": runs["counts"].decode()}
    return {"image_id": image, "category_id": category, "segmentation": segmentation, "area": area, "bbox": box}
