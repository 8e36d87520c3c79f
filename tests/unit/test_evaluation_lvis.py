"""Mask AP of an LVIS file, by frequency too, against what the published package `lvis` says (tests/lvis/record.py)."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from service.evaluation.dataset import read_dataset
from service.evaluation.records import DetectionRecord, PictureRecord
from service.evaluation.summary import precision_figures
from tests.lvis.cases import COUNT, CROWDED, SIZE, case

RECORDED = json.loads((Path(__file__).parents[1] / "lvis" / "figures.json").read_text())
SIZES = {"APs": "AP_small", "APm": "AP_medium", "APl": "AP_large"}
SPLITS = {"APr": "rare", "APc": "common", "APf": "frequent"}


def measured(number: int, folder: Path) -> dict[str, float | None]:
    """Our figures of a case, under the package's names; the file goes through our own reader."""
    document, results = case(number)
    path = folder / "annotations.json"
    path.write_text(json.dumps(document))
    dataset = read_dataset(path, folder)
    records = [
        PictureRecord(picture.id, "none", "0", None, (), detections_on(picture.id, results))
        for picture in dataset.pictures
    ]
    figures = precision_figures(dataset, records)
    whole = {name: figures["all"][SIZES.get(name, name)] for name in ("AP", "AP50", "AP75", *SIZES)}
    return whole | {name: figures[split]["AP"] for name, split in SPLITS.items()}


def detections_on(picture: int, results: list[dict[str, Any]]) -> tuple[DetectionRecord, ...]:
    rows = [(row["category_id"], row["score"], row["segmentation"]) for row in results if row["image_id"] == picture]
    return tuple(DetectionRecord(category, score, SIZE, runs["counts"]) for category, score, runs in rows)


@pytest.mark.parametrize("number", range(COUNT))
def test_average_precision_is_that_of_the_published_package(number: int, tmp_path: Path) -> None:
    found, recorded = measured(number, tmp_path), RECORDED[number]
    assert found.keys() == recorded.keys()
    for name, value in recorded.items():
        mine = found[name]
        assert (-1 if mine is None else mine) == pytest.approx(value, abs=1e-9), name
    assert 0 < recorded["AP"] < 1


def test_the_cases_hold_what_lvis_judges_otherwise_than_coco() -> None:
    """Without detections of unverified and partly annotated classes and too many of them, agreement proves little."""
    unverified = partial = 0
    most: Counter[int] = Counter()
    for number in range(COUNT):
        document, results = case(number)
        there = {(row["image_id"], row["category_id"]) for row in document["annotations"]}
        images = {row["id"]: row for row in document["images"]}
        for row in results:
            image, category = images[row["image_id"]], row["category_id"]
            absent = category in image["neg_category_ids"]
            unverified += (row["image_id"], category) not in there and not absent
            partial += category in image["not_exhaustive_category_ids"]
            most[number] += row["image_id"] == 1
    assert unverified > 50
    assert partial > 10
    assert most[CROWDED] > 300
