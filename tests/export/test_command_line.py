"""The commands as people run them: exit codes, messages, and the parity tool on golden data of its own format."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco

from export.__main__ import main
from export.golden_case import decode_rle, iou
from tests.export.tiny_golden import write_golden


@pytest.fixture(scope="module")
def golden(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A golden folder of the tiny network."""
    folder = tmp_path_factory.mktemp("golden")
    write_golden(folder, tiny_repository)
    return folder


def _parity(repository: Path, golden: Path, *more: str) -> int:
    return main(["parity", "--repository", str(repository), "--golden", str(golden), *more])


def test_the_list_of_files_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch-list"]) == 0
    assert "RN50x16.pt" in capsys.readouterr().out


def test_a_faithful_repository_passes(tiny_repository: Path, golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _parity(tiny_repository, golden) == 0
    printed = capsys.readouterr().out
    assert "image7 boxes equal of 4" in printed
    assert "DRIFT" not in printed


@pytest.mark.parametrize("spoilt", ["lowres", "sample_P3", "head_logits", "final"])
def test_drift_is_shown_and_fails(
    tiny_repository: Path, golden: Path, tmp_path: Path, spoilt: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in golden.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    arrays = dict(np.load(tmp_path / "image7.npz"))
    arrays[spoilt] = arrays[spoilt] + 1
    np.savez(tmp_path / "image7.npz", **arrays)
    assert _parity(tiny_repository, tmp_path, "--case", "image7") == 1
    assert capsys.readouterr().out.count("DRIFT") >= 1


def test_other_labels_fail(tiny_repository: Path, golden: Path, tmp_path: Path) -> None:
    for path in golden.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    facts = json.loads((tmp_path / "image7.json").read_text())
    facts["cases"][0]["label"] = (facts["cases"][0]["label"] + 1) % 6
    (tmp_path / "image7.json").write_text(json.dumps(facts))
    assert _parity(tiny_repository, tmp_path) == 1


def test_a_folder_without_golden_data_is_named(
    tiny_repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _parity(tiny_repository, tmp_path) == 1
    assert "no golden case" in capsys.readouterr().err
    assert _parity(tiny_repository, tmp_path, "--case", "image2") == 1
    assert "image2.json: no such file" in capsys.readouterr().err


def test_a_vocabulary_of_ones_own_names_is_added(
    own_repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "names.txt").write_text("red_mug\nblue_mug\n")
    arguments = ["vocabulary", "mugs", "--names", str(tmp_path / "names.txt"), "--repository", str(own_repository)]
    assert main(arguments) == 0
    assert "ranking one prompt" in capsys.readouterr().out
    assert (own_repository / "text_encoder/vocabularies/mugs.npz").exists()


def test_missing_checkpoints_end_with_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [f"--{name}={tmp_path / name}" for name in ("clip", "sam2clip", "clip2sam", "sam")]
    assert main(["onnx", "--variant", "tiny", *paths, "--repository", str(tmp_path / "out")]) == 1
    assert "no such file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_run_lengths_are_read_as_coco_writes_them() -> None:
    mask = np.random.default_rng(0).random((37, 53)) > 0.7
    mask[:, 20:40] = True
    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert np.array_equal(decode_rle({"size": rle["size"], "counts": rle["counts"].decode()}), mask)
    assert iou(mask, mask) == 1
    assert iou(mask, ~mask) == 0
