"""`ovsam evaluate` and `ovsam compare` against a real server process with the bundled model."""

import argparse
import contextlib
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from service.baselines.opening import Baselines
from service.evaluation.commands import register
from service.settings import Settings
from tests.end_to_end.gateway import ROOT, Gateway, running_gateway

SET = ROOT / "tests" / "evaluation_set"
OBJECTS = 8


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("evaluate"), threads="1") as started:
        yield started


def command(*arguments: object, settings: Settings | None = None) -> int:
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers(), baselines=Baselines)
    options = parser.parse_args([str(argument) for argument in arguments])
    return int(options.run(options, settings or Settings()))


def evaluate(gateway: Gateway, out: Path, *arguments: object) -> tuple[int, dict[str, Any]]:
    given = ("--annotations", SET / "annotations.json", "--images", SET / "images", "--url", gateway.url, "--out", out)
    status = command("evaluate", *given, *arguments)
    return status, json.loads((out / "report.json").read_text())


@pytest.fixture(scope="module")
def clicked(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("clicked")
    status, report = evaluate(gateway, out, "--prompt", "points:2", "--limit", OBJECTS, "--apart", "coin")
    assert status == 0
    return out, report


def test_objects_are_measured_click_by_click_and_by_group(clicked: tuple[Path, dict[str, Any]]) -> None:
    _, report = clicked
    assert (report["objects"], report["failed"], report["model"]) == (OBJECTS, 0, "nano")
    groups = report["groups"]
    assert groups["all"]["objects"] == OBJECTS
    assert groups["photograph"]["objects"] + groups["composite"]["objects"] == groups["all but coin"]["objects"]
    assert groups["coin"]["objects"] + groups["all but coin"]["objects"] == OBJECTS
    assert [row["click"] for row in report["clicks"]] == [1, 2]
    assert report["clicks"][-1]["iou"] == pytest.approx(groups["all"]["iou"])
    last = report["clicks"][-1]["errors"]
    assert last == pytest.approx({name: 1 - row["iou"] for name, row in groups.items()})
    assert report["clicks"][0]["errors"]["all"] == report["clicks"][0]["error"] > last["all"]
    assert 0.2 < groups["all"]["iou"] <= 1
    assert groups["all"]["top1"] <= groups["all"]["top5"]


def test_first_clicks_are_told_from_warm_ones(clicked: tuple[Path, dict[str, Any]]) -> None:
    _, report = clicked
    first, warm = report["latency_ms"]["first"], report["latency_ms"]["warm"]
    assert first["count"] == report["pictures"]
    assert first["count"] + warm["count"] == 2 * OBJECTS
    assert warm["p50"] < first["p50"]


def test_a_run_leaves_markdown_charts_and_a_contact_sheet(clicked: tuple[Path, dict[str, Any]]) -> None:
    out, _ = clicked
    text = (out / "report.md").read_text()
    assert "| all but coin |" in text
    assert "| clicks |" in text
    assert "| 1 - IoU by group | 1 click | 2 clicks |" in text
    for name in ("groups", "iou", "clicks", "latency", "contact_sheet"):
        picture = cv2.imread(str(out / f"{name}.png"))
        assert picture is not None
        assert picture.std() > 5


def test_a_run_that_was_cut_off_is_resumed_where_it_ended(
    gateway: Gateway, clicked: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    finished, report = clicked
    out = tmp_path / "resumed"
    shutil.copytree(finished, out)
    lines = (finished / "pictures.jsonl").read_text().splitlines(keepends=True)
    (out / "pictures.jsonl").write_text("".join(lines[:-1]) + lines[-1][:40])
    asked = ("--prompt", "points:2", "--limit", OBJECTS, "--apart", "coin", "--resume")
    status, resumed = evaluate(gateway, out, *asked)
    assert status == 0
    assert resumed["groups"] == report["groups"]
    assert (out / "pictures.jsonl").read_text().splitlines(keepends=True)[:-1] == lines[:-1]
    with pytest.raises(FileExistsError, match="another request"):
        evaluate(gateway, out, "--prompt", "paper-box", "--resume")


def test_given_detections_get_masks_and_the_average_precision_that_pycocotools_gives(
    gateway: Gateway, tmp_path: Path
) -> None:
    """On a picture without any object too, where every detection is a false alarm."""
    document = json.loads((SET / "annotations.json").read_text())
    images = [row for row in document["images"] if row["file_name"] in {"coffee.jpg", "cat.jpg"}]
    ids = {row["file_name"]: row["id"] for row in images}
    coffee, cat = ids["coffee.jpg"], ids["cat.jpg"]
    rows = [row for row in document["annotations"] if row["image_id"] == coffee]
    own, boxes = tmp_path / "annotations.json", tmp_path / "detections.json"
    own.write_text(json.dumps({**document, "images": images, "annotations": rows}))
    kept = ("image_id", "category_id", "bbox")
    given = [{**{key: row[key] for key in kept}, "score": 0.9} for row in rows]
    given.append({"image_id": cat, "category_id": rows[0]["category_id"], "bbox": [100, 50, 200, 200], "score": 0.95})
    boxes.write_text(json.dumps(given))
    asked = ("--annotations", own, "--prompt", "paper-box", "--detections", boxes)
    status, report = evaluate(gateway, tmp_path / "out", *asked)
    assert status == 0
    assert (report["pictures"], report["groups"]["all"]["pictures"]) == (2, 1)
    precision = report["average_precision"]["all"]
    expected = by_pycocotools(own, tmp_path / "out" / "pictures.jsonl")
    assert [precision[name] for name in ("AP", "AP50", "AP75")] == pytest.approx(expected, abs=1e-9)
    assert 0 < precision["AP50"] < 1


def by_pycocotools(annotations: Path, records: Path) -> list[float]:
    """AP, AP50 and AP75 of the masks that were recorded."""
    results = [
        {
            "image_id": record["id"],
            "category_id": found["category"],
            "score": found["score"],
            "segmentation": {"size": found["size"], "counts": found["counts"]},
        }
        for record in map(json.loads, records.read_text().splitlines())
        for found in record["detections"]
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(str(annotations))
        judge = COCOeval(known, known.loadRes(results), "segm")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    figures: list[float] = judge.stats[:3].tolist()
    return figures


def test_recognisers_are_compared_over_the_masks_that_were_measured(gateway: Gateway, tmp_path: Path) -> None:
    """Through a running service, whose graphs are read from the folder that it serves."""
    asked = ("--prompt", "paper-box", "--limit", 4, "--recogniser", "all")
    status, report = evaluate(gateway, tmp_path, *asked)
    assert status == 0
    found = report["recognisers"]
    assert list(found["rows"]) == ["ovsam", "image-crop", "feature-crop"]
    own, crop, feature = found["rows"].values()
    assert {key: own["groups"]["all"][key] for key in ("top1", "top5")} == {
        key: report["groups"]["all"][key] for key in ("top1", "top5")
    }
    for row in (own, crop, feature):
        assert row["groups"]["all"]["objects"] == row["ms"]["count"] == 4
    assert own["ms"]["p50"] < crop["ms"]["p50"]
    assert 0 < feature["gflop"] < own["gflop"] < crop["gflop"] < found["image_gflop"]
    assert "| image-crop |" in (tmp_path / "report.md").read_text()


def test_recognisers_of_another_model_than_the_services_are_refused(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(ROOT / "model_repository", other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "revision": "0" * 64}))
    given = ("--annotations", SET / "annotations.json", "--images", SET / "images", "--url", gateway.url)
    asked = ("--limit", 1, "--recogniser", "ovsam", "--out", tmp_path / "out")
    assert command("evaluate", *given, *asked, settings=Settings(model_repository=other)) == 2
    assert "holds another model" in capsys.readouterr().err


def test_options_that_cannot_be_followed_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--annotations", SET / "annotations.json", "--images", SET / "images", "--out", tmp_path]
    for wrong, reason in (
        (("--prompt", "circle"), "paper-point"),
        (("--split", "novel"), "novel"),
        (("--apart", "coins"), "coins"),
        (("--url", "http://127.0.0.1:9", "--limit", 1), "no answer"),
        (("--url", SET), "neither a URL nor a model repository"),
        (("--recogniser", "clip"), "image-crop"),
    ):
        assert command("evaluate", *given, *wrong) == 2
        assert reason in capsys.readouterr().err


def test_a_service_agrees_with_its_own_model_repository(gateway: Gateway, tmp_path: Path) -> None:
    asked = ("--limit", 1, "--grid", 2, "--out", tmp_path)
    assert command("compare", gateway.url, ROOT / "model_repository", *asked) == 0
    report = json.loads((tmp_path / "comparison.json").read_text())
    assert report["prompts"] == 8
    assert report["mask_iou"]["mean"] == pytest.approx(1.0, abs=1e-3)
    assert report["label_agreement"] == 1.0


def test_a_model_that_answers_otherwise_fails_the_gate_with_pictures(gateway: Gateway, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(ROOT / "model_repository", changed)
    manifest = json.loads((changed / "manifest.json").read_text())
    (changed / "manifest.json").write_text(json.dumps({**manifest, "clean_up": None}))
    out = tmp_path / "out"
    asked = ("--images", ROOT / "service/transports/web/samples", "--limit", 1, "--grid", 2, "--out", out)
    assert command("compare", gateway.url, changed, *asked) == 1
    report = json.loads((out / "comparison.json").read_text())
    assert report["mask_iou"]["mean"] < 0.99
    assert report["drifted"] > 0
    picture = cv2.imread(str(out / "drifted.png"))
    assert picture is not None
    assert np.ptp(picture) > 100


def test_a_folder_without_a_model_is_told_at_once(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("compare", gateway.url, ROOT / "tests") == 2
    assert "neither a URL nor a model repository" in capsys.readouterr().err
