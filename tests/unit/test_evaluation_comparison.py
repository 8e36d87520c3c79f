"""The verdict of `ovsam compare`, and what a run of `ovsam evaluate` keeps on disk."""

from pathlib import Path

import numpy as np
import pytest

from service.client.answers import ClassScore, SegmentedObject
from service.client.errors import RequestFailed
from service.client.masks import Rle
from service.client.options import Prompt
from service.core.encodings import encode_rle
from service.evaluation.compare import overlap
from service.evaluation.comparison import Pair, Question, Tolerance, comparison, write_comparison
from service.evaluation.generated import generate
from service.evaluation.records import DetectionRecord, ObjectRecord, PictureRecord, RecordFile, Step

STRICT = Tolerance(mask_iou=0.999, label_agreement=0.99)
MODELS = [{"asked": side, "model": "nano", "revision": "0" * 64} for side in "AB"]


def answer(columns: int, name: str | None = "cup", *, error: RequestFailed | None = None) -> SegmentedObject:
    mask = np.zeros((480, 640), np.bool_)
    mask[100:200, 100 : 100 + columns] = True
    rle = Rle((480, 640), encode_rle(mask)) if error is None else None
    classes = (ClassScore(name, 0.9),) if name is not None else ()
    return SegmentedObject(
        id="0", rle=rle, classes=classes, box=None, area=0, stability=1.0, mask_ref=None, error=error
    )


def pair(one: SegmentedObject, other: SegmentedObject) -> Pair:
    question = Question("generated-0.png", generate(0), ())
    return Pair(question, Prompt(points=[(150, 150, 1)]), one, other, overlap(one, other))


def verdict(*pairs: Pair) -> bool:
    return bool(comparison(pairs, models=MODELS, tolerance=STRICT)["within_tolerance"])


def test_equal_answers_pass_and_another_mask_or_name_does_not() -> None:
    same = pair(answer(100), answer(100))
    assert verdict(same)
    assert not verdict(same, pair(answer(100), answer(98)))
    assert not verdict(same, pair(answer(100), answer(100, "plate")))
    assert verdict(same, pair(answer(0, None), answer(0, None)))


def test_means_decide_and_single_cases_are_shown(tmp_path: Path) -> None:
    pairs = [pair(answer(100), answer(100))] * 3 + [pair(answer(100), answer(50))]
    report = comparison(pairs, models=MODELS, tolerance=Tolerance(mask_iou=0.85, label_agreement=1.0))
    assert report["mask_iou"] == {"mean": pytest.approx(0.875), "least": 0.5, "identical": 0.75}
    assert report["within_tolerance"]
    assert report["drifted"] == 1
    assert "| mean mask IoU | 0.87500 | 0.85 |" in write_comparison(tmp_path, report, pairs)
    assert (tmp_path / "drifted.png").exists()
    write_comparison(tmp_path, report, pairs[:3])
    assert not (tmp_path / "drifted.png").exists()


def test_a_prompt_that_failed_on_one_side_agrees_in_nothing() -> None:
    failed = answer(0, None, error=RequestFailed("outside the image", code="invalid-prompt"))
    half = pair(answer(100, None), failed)
    assert half.iou == 0
    assert not half.agrees
    both = pair(failed, failed)
    assert both.iou == 1
    assert both.agrees
    assert not verdict(pair(answer(100), answer(100)), both)


def test_generated_pictures_are_the_same_every_time_and_differ_from_each_other() -> None:
    assert generate(3) == generate(3)
    assert generate(3) != generate(4)


def test_records_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    step = Step(iou=0.5, boundary_iou=0.25, names=("cup", "mug"), seconds=0.01)
    click = ObjectRecord(4, (step, step), ((3.0, 4.0, 1), (5.0, 6.0, 0)), None, (4, 5), "n:", None)
    box = ObjectRecord(5, (), (), (1.0, 2.0, 3.0, 4.0), (4, 5), None, "invalid-prompt: outside")
    record = PictureRecord(7, "nano", "0" * 64, 0.5, (click, box), (DetectionRecord(3, 0.5, (4, 5), "n:"),))
    file = RecordFile(tmp_path / "run", {"prompt": "points:2"})
    file.start()
    assert list(file.append([record])) == [record]
    assert RecordFile(tmp_path / "run", {"prompt": "points:2"}).resume() == [record]
    with pytest.raises(FileExistsError):
        RecordFile(tmp_path / "run", {"prompt": "paper-box"}).resume()
