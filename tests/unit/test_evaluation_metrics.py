"""Masks, IoU, boundary IoU and average precision of `ovsam evaluate` against pycocotools and counts by hand."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from faster_coco_eval.core import mask as published  # type: ignore[import-untyped]
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from service.client.masks import BoolArray
from service.evaluation.average_precision import AveragePrecision, Detection, Truth, Verified
from service.evaluation.dataset import InvalidDataSet, Target, choose, clip_box, read_dataset
from service.evaluation.masks import decode_segmentation, fill_polygons
from service.evaluation.metrics import boundary_iou, inner_band, iou, percentiles_ms
from service.evaluation.prompts import corrective_click, parse_rule
from service.evaluation.splits import splits_of

ROOT = Path(__file__).resolve().parents[2]
SET = ROOT / "tests" / "evaluation_set"
SIZE = (120, 160)


def encoded(mask: BoolArray) -> dict[str, Any]:
    found = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": found["counts"].decode()}


def rectangle(x1: int, y1: int, x2: int, y2: int, *, size: tuple[int, int] = SIZE) -> BoolArray:
    mask = np.zeros(size, np.bool_)
    mask[y1:y2, x1:x2] = True
    return mask


def blob(rng: np.random.Generator) -> BoolArray:
    canvas = np.zeros(SIZE, np.uint8)
    centre = (int(rng.integers(SIZE[1])), int(rng.integers(SIZE[0])))
    axes = (int(rng.integers(4, 60)), int(rng.integers(4, 60)))
    cv2.ellipse(canvas, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    return canvas.astype(np.bool_)


@pytest.mark.parametrize("seed", range(20))
def test_iou_is_that_of_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = blob(rng), blob(rng)
    expected = coco.iou([encoded(one)], [encoded(other)], [False])[0, 0]
    assert iou(one, other) == pytest.approx(expected, abs=1e-12)


def test_iou_of_nothing() -> None:
    empty, something = np.zeros(SIZE, np.bool_), rectangle(3, 3, 9, 9)
    assert iou(empty, empty) == 1.0
    assert iou(empty, something) == 0.0


@pytest.mark.parametrize("seed", range(10))
def test_boundary_iou_is_that_of_a_published_implementation(seed: int) -> None:
    """Blobs that overlap, cross the picture's border and are thinner than the band."""
    rng = np.random.default_rng(seed)
    for _ in range(5):
        one = blob(rng)
        other = np.roll(one, rng.integers(-6, 7, 2), (0, 1)) | blob(rng)
        bands = [published.rleToBoundary(encoded(mask)) for mask in (one, other)]
        for mask, band in zip((one, other), bands, strict=True):
            assert np.array_equal(inner_band(mask, distance=4), published.decode(band).astype(np.bool_))
        assert boundary_iou(one, other) == pytest.approx(published.iou(*[[b] for b in bands], [0])[0, 0], abs=1e-12)


def test_boundary_iou_counted_by_hand() -> None:
    """On 120 x 160 the diagonal is 200 and the band 4 pixels wide; squares of 40 pixels, one moved by 2."""
    truth, found = rectangle(40, 40, 80, 80), rectangle(42, 40, 82, 80)
    band = 40 * 40 - 32 * 32
    # rows of the top and bottom bands (8) share columns 42..80; other rows (32) share 42..44 and 78..80
    shared = 8 * 38 + 32 * (2 + 2)
    assert np.count_nonzero(inner_band(truth, distance=4)) == band
    assert boundary_iou(found, truth) == pytest.approx(shared / (2 * band - shared))
    assert boundary_iou(found, truth) < iou(found, truth)


def test_the_border_of_the_image_is_a_boundary() -> None:
    everything = np.ones(SIZE, np.bool_)
    assert np.count_nonzero(inner_band(everything, distance=4)) == 120 * 160 - 112 * 152


def test_polygons_of_the_evaluation_set_are_filled_as_pycocotools_does() -> None:
    """The file's own masks were filled by pycocotools, which rounds corners to a fifth of a pixel."""
    document = json.loads((SET / "annotations.json").read_text())
    sizes = {row["id"]: (row["height"], row["width"]) for row in document["images"]}
    rows = [row for row in document["annotations"] if isinstance(row["segmentation"], list)]
    overlaps = []
    for row in rows:
        size = sizes[row["image_id"]]
        expected = coco.decode(coco.merge(coco.frPyObjects(row["segmentation"], *size))).astype(np.bool_)
        overlaps.append(iou(fill_polygons(row["segmentation"], size), expected))
    assert len(overlaps) > 50
    print({"polygons": len(overlaps), "least_iou": min(overlaps), "mean_iou": float(np.mean(overlaps))})
    assert min(overlaps) > 0.95
    assert float(np.mean(overlaps)) > 0.99


def test_polygons_on_whole_pixels_and_with_a_crossing_are_exact() -> None:
    assert np.array_equal(fill_polygons([[10, 20, 50, 20, 50, 60, 10, 60]], SIZE), rectangle(10, 20, 50, 60))
    assert np.array_equal(fill_polygons([[-9, -9, 500, -9, 500, 500, -9, 500]], SIZE), np.ones(SIZE, np.bool_))
    two = fill_polygons([[0, 0, 10, 0, 10, 10, 0, 10], [5, 5, 15, 5, 15, 15, 5, 15]], SIZE)
    assert np.count_nonzero(two) == 175


def test_both_kinds_of_runs_are_read() -> None:
    mask = blob(np.random.default_rng(1))
    columns = mask.T.reshape(-1).astype(np.int8)
    edges = np.flatnonzero(np.diff(columns, prepend=0))
    runs = np.diff(np.concatenate([[0], edges, [columns.size]])).tolist()
    assert np.array_equal(decode_segmentation(encoded(mask), SIZE), mask)
    assert np.array_equal(decode_segmentation({"size": list(SIZE), "counts": runs}, SIZE), mask)


def crafted(seed: int) -> tuple[list[list[Truth]], list[list[Detection]]]:
    """Six pictures of three classes with crowds, doubles, misses and false alarms."""
    rng = np.random.default_rng(seed)
    truths, detections = [], []
    for _ in range(6):
        true = [Truth(int(rng.integers(1, 4)), 0, bool(rng.random() < 0.15), blob(rng)) for _ in range(6)]
        true = [item._replace(area=float(item.mask.sum())) for item in true if item.mask.any()]
        found = [
            Detection(item.category, round(float(rng.random()), 2), np.roll(item.mask, rng.integers(-4, 5, 2), (0, 1)))
            for item in true
            for _ in range(int(rng.integers(0, 3)))
        ]
        found += [Detection(int(rng.integers(1, 4)), round(float(rng.random()), 2), blob(rng)) for _ in range(2)]
        truths.append(true)
        detections.append([item for item in found if item.mask.any()])
    return truths, detections


def by_pycocotools(truths: list[list[Truth]], detections: list[list[Detection]]) -> dict[str, float]:
    annotations = [
        {
            "image_id": i,
            "category_id": t.category,
            "iscrowd": int(t.crowd),
            "area": t.area,
            "segmentation": encoded(t.mask),
        }
        for i, items in enumerate(truths)
        for t in items
    ]
    results = [
        {"image_id": i, "category_id": d.category, "score": d.score, "segmentation": encoded(d.mask)}
        for i, items in enumerate(detections)
        for d in items
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = {
            "info": {},
            "images": [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in range(len(truths))],
            "categories": [{"id": i, "name": str(i)} for i in (1, 2, 3)],
            "annotations": [{**row, "id": number, "bbox": [0, 0, 1, 1]} for number, row in enumerate(annotations, 1)],
        }
        known.createIndex()
        judge = COCOeval(known, known.loadRes(results), "segm")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return dict(zip(("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"), judge.stats[:6].tolist(), strict=True))


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_is_that_of_pycocotools(seed: int) -> None:
    truths, detections = crafted(seed)
    precision = AveragePrecision()
    for true, found in zip(truths, detections, strict=True):
        precision.add(true, found)
    expected = by_pycocotools(truths, detections)
    figures = precision.figures()
    assert figures.keys() == expected.keys()
    for name, value in expected.items():
        measured = figures[name]
        assert (-1 if measured is None else measured) == pytest.approx(value, abs=1e-9), name
    assert 0 < expected["AP"] < 1


def test_average_precision_of_some_classes_leaves_out_the_others() -> None:
    precision = AveragePrecision()
    square, elsewhere = rectangle(10, 10, 60, 60), rectangle(100, 10, 150, 60)
    truths = [Truth(1, 2500, False, square), Truth(2, 2500, False, square)]
    precision.add(truths, [Detection(1, 0.9, square), Detection(2, 0.9, elsewhere)])
    assert precision.figures([1])["AP"] == pytest.approx(1.0)
    assert precision.figures([2])["AP"] == 0.0
    assert precision.figures()["AP"] == pytest.approx(0.5)
    assert precision.figures([3])["AP"] is None


def test_lvis_counts_no_detection_of_what_nobody_looked_for() -> None:
    """Class 1 is verified, of class 2 not all objects are annotated, for class 3 nobody looked on the first picture."""
    square, elsewhere = rectangle(10, 10, 60, 60), rectangle(100, 10, 150, 60)
    truths = [Truth(1, 2500, False, square), Truth(2, 2500, False, square)]
    found = [Detection(kind, 0.95, elsewhere) for kind in (1, 2, 3)] + [Detection(k, 0.9, square) for k in (1, 2)]
    by_lvis, by_coco = AveragePrecision(), AveragePrecision()
    by_lvis.add(truths, found, verified=Verified(frozenset({1, 2}), frozenset({2})))
    by_coco.add(truths, found)
    for precision in (by_lvis, by_coco):
        precision.add([Truth(3, 2500, False, square)], [Detection(3, 0.9, square)])
    assert [by_lvis.figures([kind])["AP"] for kind in (1, 2, 3)] == pytest.approx([0.5, 1.0, 1.0])
    assert [by_coco.figures([kind])["AP"] for kind in (1, 2, 3)] == pytest.approx([0.5, 0.5, 0.5])


def test_what_lvis_verified_is_read_from_its_file(tmp_path: Path) -> None:
    document = json.loads((SET / "annotations.json").read_text())
    lvis = {"neg_category_ids": [3], "not_exhaustive_category_ids": [2]}
    images = [row | lvis if row["id"] == document["images"][0]["id"] else row for row in document["images"]]
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps({**document, "images": images}))
    first, second, *_ = read_dataset(path, SET / "images").pictures
    there = frozenset(target.category.id for target in first.annotated)
    assert first.verified == Verified(there | {3}, frozenset({2}))
    assert second.verified is None


def test_corrections_go_to_the_middle_of_the_largest_error() -> None:
    truth = rectangle(20, 20, 80, 80)
    assert corrective_click(truth, truth) is None
    x, y, label = corrective_click(truth & ~rectangle(20, 20, 51, 51), truth) or (0, 0, 0)
    assert label == 1
    assert abs(x - 35) <= 1
    assert abs(y - 35) <= 1
    x, y, label = corrective_click(truth | rectangle(100, 40, 141, 81), truth) or (0, 0, 1)
    assert label == 0
    assert abs(x - 120) <= 1
    assert abs(y - 60) <= 1


def target(**changes: Any) -> Target:
    dataset = read_dataset(SET / "annotations.json", SET / "images")
    found = dataset.pictures[0].targets[0]
    return (
        found if not changes else Target(**{name: changes.get(name, getattr(found, name)) for name in Target.__slots__})
    )


def test_the_papers_prompts_are_box_and_its_centre() -> None:
    thing = target(box=(10.0, 20.0, 50.0, 40.0), point=(3.0, 4.0))
    assert parse_rule("paper-box").first(thing).box == (10.0, 20.0, 50.0, 40.0)
    assert list(parse_rule("paper-point").first(thing).points) == [(30.0, 30.0, 1)]
    assert list(parse_rule("points:3").first(thing).points) == [(3.0, 4.0, 1)]
    assert parse_rule("points:3").clicks == 3
    for wrong in ("points:0", "points:", "circle", "points:-1"):
        with pytest.raises(InvalidDataSet):
            parse_rule(wrong)


def test_without_a_given_point_the_first_click_is_deep_inside() -> None:
    thing = target(point=None)
    ((x, y, *label),) = parse_rule("point").first(thing).points
    assert label == [1]
    assert thing.mask()[int(y), int(x)]


def test_splits_are_those_the_bundled_vocabularies_ship() -> None:
    for name, groups in (("coco", ("base", "novel")), ("lvis", ("common", "frequent", "rare"))):
        path = ROOT / "model_repository" / "text_encoder" / "vocabularies" / f"{name}.json"
        shipped = json.loads(path.read_text())
        names = json.loads((ROOT / "service" / "evaluation" / "splits.json").read_text())[name]
        assert sorted(names) == sorted(groups)
        novel = names["novel" if name == "coco" else "rare"]
        assert len(novel) == len(shipped["novel"])
        assert sum(len(members) for members in names.values()) == len(shipped["novel"]) + len(shipped["base"])
    assert splits_of([synonyms[0] for synonyms in coco_classes()])["dog"] == "novel"
    assert splits_of(["cat", "dog"]) == {}


def coco_classes() -> list[list[str]]:
    document = json.loads((ROOT / "model_repository" / "text_encoder" / "vocabularies" / "coco.json").read_text())
    classes: list[list[str]] = document["classes"]
    return classes


def test_lvis_files_bring_their_frequencies_and_addresses(tmp_path: Path) -> None:
    row = {"id": 5, "image_id": 7, "area": 4, "bbox": [1, 1, 2, 2], "segmentation": [[1, 1, 3, 1, 3, 3, 1, 3]]}
    document = {
        "images": [{"id": 7, "height": 9, "width": 9, "coco_url": "http://host/val2017/000000000007.jpg"}],
        "categories": [
            {"id": 1, "name": "aerosol_can", "synonyms": ["aerosol_can", "spray_can"], "frequency": "c"},
            {"id": 2, "name": "anvil", "synonyms": ["anvil"], "frequency": "r"},
        ],
        "annotations": [{**row, "category_id": 1}, {**row, "id": 6, "category_id": 2}],
    }
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps(document))
    dataset = read_dataset(path, tmp_path)
    assert dataset.pictures[0].path == tmp_path / "000000000007.jpg"
    assert dataset.categories[1].names == {"aerosol can", "spray can"}
    rare = choose(dataset, splits=["rare"], limit=None)
    assert [target.id for target in rare.pictures[0].targets] == [6]
    with pytest.raises(InvalidDataSet, match="novel"):
        choose(dataset, splits=["novel"], limit=None)


def test_boxes_that_reach_out_of_the_picture_are_clipped() -> None:
    assert clip_box((-0.5, 3.0, 160.2, 120.01), SIZE) == (0.0, 3.0, 160.0, 120.0)


def test_serving_never_loads_what_evaluation_does() -> None:
    """The commands are registered with every start of the console program."""
    code = "import sys, service.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    own = {name for name in loaded.split() if name.startswith(("service.evaluation.", "service.baselines", "onnx."))}
    assert own == {"service.evaluation.commands", "service.evaluation.panel"}


def test_a_limit_spreads_over_the_file_and_crowds_are_not_asked_for() -> None:
    dataset = read_dataset(SET / "annotations.json", SET / "images")
    few = choose(dataset, splits=[], limit=8)
    assert len(few.targets()) == 8
    assert len(few.pictures) >= 5
    assert len(dataset.targets()) == 152


def test_pictures_without_objects_stay_where_something_was_detected_on_them(tmp_path: Path) -> None:
    """COCO counts a detection where nothing is as a false alarm; a part of the file is not judged as the whole."""
    document = json.loads((SET / "annotations.json").read_text())
    first, second, *_ = (row["id"] for row in document["images"])
    rows = [row for row in document["annotations"] if row["image_id"] not in {first, second}]
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps({**document, "annotations": rows}))
    dataset = read_dataset(path, SET / "images")

    def without_objects(**asked: Any) -> set[int]:
        chosen = choose(dataset, **{"splits": [], "limit": None, "detected": {second}, **asked})
        return {picture.id for picture in chosen.pictures if not picture.targets}

    assert without_objects() == {second}
    assert without_objects(detected=()) == set()
    assert without_objects(limit=3) == set()


def test_latency_percentiles_name_their_count() -> None:
    assert percentiles_ms([]) == {"count": 0}
    assert percentiles_ms([0.01, 0.02, 0.03]) == {"count": 3, "p50": 20.0, "p90": 28.0, "p99": 29.8}
