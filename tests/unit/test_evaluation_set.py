"""The committed evaluation set is whole, licensed and true to itself, and so are the page's sample photographs."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

TESTS = Path(__file__).parents[1]
EVALUATION_SET = TESTS / "evaluation_set"
SAMPLES = TESTS.parent / "service" / "transports" / "web" / "samples"
MEGABYTE = 1 << 20

# pycocotools 2.0.11 decodes through an array protocol that NumPy 2 warns about
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def coco() -> COCO:
    return COCO(str(EVALUATION_SET / "annotations.json"))


@pytest.fixture(scope="module")
def annotations(coco: COCO) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = coco.dataset["annotations"]
    return rows


def test_both_kinds_give_enough_objects(coco: COCO, annotations: list[dict[str, Any]]) -> None:
    kinds = [coco.imgs[annotation["image_id"]]["kind"] for annotation in annotations]
    assert kinds.count("photograph") >= 50
    assert kinds.count("composite") >= 50
    assert set(kinds) == {"photograph", "composite"}


def test_every_image_exists_in_the_stated_size_and_nothing_else_lies_there(coco: COCO) -> None:
    stated = {row["file_name"]: (row["height"], row["width"]) for row in coco.dataset["images"]}
    found = {}
    for path in (EVALUATION_SET / "images").iterdir():
        image = cv2.imread(str(path))
        assert image is not None, path.name
        found[path.name] = image.shape[:2]
    assert found == stated


def test_area_and_box_agree_with_the_mask(coco: COCO, annotations: list[dict[str, Any]]) -> None:
    for annotation in annotations:
        mask = coco.annToMask(annotation)
        rows, columns = np.nonzero(mask)
        box = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        assert mask.sum() == pytest.approx(annotation["area"], rel=0.01), annotation["id"]
        assert annotation["bbox"] == pytest.approx(box, abs=1), annotation["id"]
        assert annotation["iscrowd"] == 0


def test_point_means_its_object(coco: COCO, annotations: list[dict[str, Any]]) -> None:
    """No smaller object lies at an object's point."""
    for annotation in annotations:
        x, y = annotation["point"]
        assert coco.annToMask(annotation)[y, x], annotation["id"]
        for other in coco.imgToAnns[annotation["image_id"]]:
            assert other["area"] >= annotation["area"] or not coco.annToMask(other)[y, x], (
                annotation["id"],
                other["id"],
            )


def test_categories_are_named_once_and_used(coco: COCO, annotations: list[dict[str, Any]]) -> None:
    names = [row["name"] for row in coco.dataset["categories"]]
    assert len(names) == len(set(names))
    assert {annotation["category_id"] for annotation in annotations} == set(coco.cats)
    assert all(row["synonyms"][0] == row["name"] for row in coco.dataset["categories"])


def test_every_image_has_a_licence_here_and_in_the_readme(coco: COCO) -> None:
    licences = {row["id"]: row["name"] for row in coco.dataset["licenses"]}
    table = _licence_table(EVALUATION_SET / "README.md")
    for image in coco.dataset["images"]:
        file_name = image["file_name"]
        row = table.get(file_name) or table["composite-*.jpg"]
        assert licences[image["license"]] in row, file_name
        assert image["author"], file_name
        assert image["source"], file_name


def test_samples_are_licensed_and_small() -> None:
    table = _licence_table(SAMPLES / "LICENCES.md")
    photographs = list(SAMPLES.glob("*.jpg"))
    assert {path.name for path in photographs} == set(table)
    assert sum(path.stat().st_size for path in photographs) <= 1.5 * MEGABYTE


def test_evaluation_set_stays_small() -> None:
    assert sum(path.stat().st_size for path in EVALUATION_SET.rglob("*") if path.is_file()) <= 4 * MEGABYTE


def _licence_table(path: Path) -> dict[str, str]:
    """Rows of the markdown table by the file name in their first column."""
    rows = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("| `") and ".jpg" in line]
    return {row.split("`")[1]: row for row in rows}
