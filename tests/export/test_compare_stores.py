"""`ovsam compare` between the raw store of the full-size network and its quantised one: what a byte for a value costs.

The masks come from tensors that neither store quantises; the labels are what may drift.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest

from export.network.ovsam import OpenVocabularySam
from service.baselines.opening import Baselines
from service.evaluation.commands import register
from service.settings import Settings
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


def test_the_quantised_store_names_and_outlines_what_the_raw_one_does(stores: list[Path], tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers(), baselines=Baselines)
    tolerance = ["--min-iou", "0.999", "--min-agreement", "0.99"]
    asked = ["--limit", "1", "--grid", "5", "--vocabulary", "golden", "--out", str(tmp_path), *tolerance]
    options = parser.parse_args(["compare", *map(str, stores), *asked])
    status = options.run(options, Settings())
    report = json.loads((tmp_path / "comparison.json").read_text())
    print({key: report[key] for key in ("prompts", "mask_iou", "label_agreement", "drifted")})
    assert status == 0
    assert report["prompts"] == 50
    assert report["failed"] == 0
    assert report["mask_iou"]["mean"] >= 0.999
    assert report["label_agreement"] >= 0.99
