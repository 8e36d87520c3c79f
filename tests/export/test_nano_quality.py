"""What nano's manifest states is what users of the service get, measured on the photographs of the repository.

The manifest's are measured by `python -m export.nano.evaluate` on the graphs alone, these by `ovsam evaluate` through a
real service: two programs, one rule of prompts, one answer. Composites and drawings need the prepared training data.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.nano.evaluate import CLICKS, IMAGENET_LIKE
from service.baselines.opening import Baselines
from service.evaluation.commands import register
from service.evaluation.dataset import DataSet, Target, read_dataset
from service.evaluation.splits import plain_name
from service.settings import Settings
from tests.end_to_end.gateway import ROOT, Gateway, running_gateway

SET = ROOT / "tests" / "evaluation_set"
REPOSITORY = ROOT / "model_repository"
IOU_TOLERANCE = 0.01
"""Two programs fill polygons and read JPEG files by different code, so border pixels of small objects differ."""
Steps = Mapping[int, Sequence[Mapping[str, Any]]]


@pytest.fixture(scope="module")
def quality() -> dict[str, float]:
    figures: dict[str, float] = json.loads((REPOSITORY / "manifest.json").read_text())["quality"]
    return figures


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("quality")) as started:
        yield started


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The annotations of the evaluation set's photographs, coins among them."""
    document = json.loads((SET / "annotations.json").read_text())
    images = [row for row in document["images"] if row["kind"] == "photograph"]
    numbers = {row["id"] for row in images}
    rows = [row for row in document["annotations"] if row["image_id"] in numbers]
    path = tmp_path_factory.mktemp("photographs") / "annotations.json"
    path.write_text(json.dumps({**document, "images": images, "annotations": rows}))
    return path


@pytest.fixture(scope="module")
def dataset(photographs: Path) -> DataSet:
    return read_dataset(photographs, SET / "images")


def measured(gateway: Gateway, annotations: Path, out: Path, *, prompt: str) -> dict[int, list[dict[str, Any]]]:
    """The steps of each object after a run of `ovsam evaluate`."""
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers(), baselines=Baselines)
    data = ["--annotations", str(annotations), "--images", str(SET / "images"), "--url", gateway.url]
    options = parser.parse_args(["evaluate", *data, "--prompt", prompt, "--vocabulary", "common", "--out", str(out)])
    assert options.run(options, Settings()) == 0
    records = [json.loads(line) for line in (out / "pictures.jsonl").read_text().splitlines()]
    return {item["id"]: item["steps"] for record in records for item in record["objects"]}


@pytest.fixture(scope="module")
def clicked(gateway: Gateway, photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Steps:
    return measured(gateway, photographs, tmp_path_factory.mktemp("clicked"), prompt=f"points:{CLICKS}")


@pytest.fixture(scope="module")
def boxed(gateway: Gateway, photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Steps:
    return measured(gateway, photographs, tmp_path_factory.mktemp("boxed"), prompt="paper-box")


def chosen(dataset: DataSet, *, coins: bool) -> list[Target]:
    targets = [target for picture in dataset.pictures for target in picture.targets]
    return [target for target in targets if (target.category.name == "coin") == coins]


@pytest.mark.parametrize("part", ["photographs", "coins"])
def test_masks_are_as_good_as_the_manifest_says(
    part: str, quality: dict[str, float], dataset: DataSet, clicked: Steps, boxed: Steps
) -> None:
    targets = chosen(dataset, coins=part == "coins")
    found = {
        "click": np.mean([clicked[target.id][0]["iou"] for target in targets]),
        f"{CLICKS}_clicks": np.mean([clicked[target.id][-1]["iou"] for target in targets]),
        "box": np.mean([boxed[target.id][0]["iou"] for target in targets]),
    }
    stated = {key: quality[f"{part}_{key}"] for key in found}
    print({key: (round(float(found[key]), 4), stated[key]) for key in found})
    assert quality[f"{part}_objects"] == len(targets)
    assert found == pytest.approx(stated, abs=IOU_TOLERANCE)


@pytest.mark.parametrize("figure", ["photograph_names", "photograph_names_all", "photograph_part_names"])
def test_names_are_as_good_as_the_manifest_says(
    figure: str, quality: dict[str, float], dataset: DataSet, clicked: Steps
) -> None:
    """After one click, out of the default vocabulary, within one object: ranks may be a hair apart."""
    document = json.loads((REPOSITORY / "text_encoder" / "vocabularies" / "common.json").read_text())
    synonyms = {plain_name(names[0]): {plain_name(name) for name in names} for names in document["classes"]}
    known = set().union(*synonyms.values())
    wanted = set(IMAGENET_LIKE) if figure == "photograph_names" else known
    parts = figure == "photograph_part_names"
    either = [target for target in chosen(dataset, coins=False) if target.part is parts]
    targets = [target for target in either if target.category.names & known & wanted]
    assert len(targets) == quality[f"{figure}_objects"]
    for among in (1, 5):
        names = [clicked[target.id][0]["names"][:among] for target in targets]
        hits = [
            any(synonyms[name] & target.category.names for name in best)
            for best, target in zip(names, targets, strict=True)
        ]
        print({f"{figure}_top{among}": (float(np.mean(hits)), quality[f"{figure}_top{among}"])})
        assert np.mean(hits) == pytest.approx(quality[f"{figure}_top{among}"], abs=1.01 / len(targets))
