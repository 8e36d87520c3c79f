"""`ovsam compare` between the raw store of the full-size network and its quantised one: what a byte for a value costs.

The masks come from tensors that neither store quantises; the labels are what may drift.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from export.network.ovsam import OpenVocabularySam
from service.evaluation.generated import generate
from tests.end_to_end.gateway import ROOT, SAMPLES
from tests.export.golden_vocabulary import with_golden_vocabulary
from tests.export.repositories import exported
from tests.export.standin import standin_network

pytestmark = pytest.mark.full_size


def raw_network() -> OpenVocabularySam:
    """The network whose region group is kept in float16, as it leaves the layers."""
    network = standin_network()
    network.variant = replace(network.variant, region_store="float16")
    return network


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The raw and the quantised repository, both with the golden vocabulary."""
    made = [exported("ovsam-rn50x16-raw", raw_network), exported("ovsam-rn50x16", standin_network)]
    return [with_golden_vocabulary(path, tmp_path_factory.mktemp("store")) for path in made]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two generated pictures and a photograph: encoding each twice is what takes the time."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(2):
        (folder / f"generated-{number}.png").write_bytes(generate(number))
    shutil.copy(SAMPLES / "coffee.jpg", folder)
    return folder


def test_the_quantised_store_names_and_outlines_what_the_raw_one_does(
    stores: list[Path], pictures: Path, tmp_path: Path
) -> None:
    """As an operator asks before a roll-out: the exit status, what is printed and what is written agree."""
    asked = ["--images", str(pictures), "--vocabulary", "golden", "--min-iou", "0.999", "--min-agreement", "0.99"]
    command = [sys.executable, "-m", "service", "compare", *map(str, stores), *asked, "--out", str(tmp_path / "out")]
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    print(ended.stdout)
    report = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert ended.returncode == 0
    assert "# Comparison: within the tolerance" in ended.stdout
    assert "54 prompts on 3 pictures" in ended.stdout
    assert report["failed"] == 0
    for row, measured, bar in (
        ("mean mask IoU", report["mask_iou"]["mean"], 0.999),
        ("label agreement", report["label_agreement"], 0.99),
    ):
        assert f"| {row} | {measured:.5f} | {bar} |" in ended.stdout
        assert measured >= bar
