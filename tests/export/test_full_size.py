"""The full-size network with the stand-in weights of the golden data: the figures of SPEC section 12, all of them.

The first run exports to build/ and takes minutes; the next ones read what is there.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from export.checkpoints import load_network, read_checkpoint
from export.golden import check_repository
from export.network.ovsam import OpenVocabularySam
from export.parity import Figure
from export.variants import VARIANTS
from tests.export.repositories import exported
from tests.export.standin import GOLDEN, ROOT, write_checkpoints

pytestmark = pytest.mark.full_size


def _standin_network() -> OpenVocabularySam:
    paths = write_checkpoints(ROOT / "build" / "standin-checkpoints")
    checkpoints = {file: read_checkpoint(path) for file, path in paths.items()}
    return load_network(VARIANTS["ovsam-rn50x16"], checkpoints)


def standin_repository() -> Path:
    """The exported repository of the stand-in weights, made unless it is there."""
    network: Callable[[], OpenVocabularySam] = _standin_network
    return exported("ovsam-rn50x16", network)


@pytest.fixture(scope="module")
def figures() -> dict[str, Figure]:
    """All figures of the exported repository on the golden image."""
    if not (GOLDEN / "image1.json").is_file():
        message = f"no golden data in {GOLDEN}; name its folder in OVSAM_GOLDEN"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    repository = standin_repository()
    return {figure.name: figure for figure in check_repository(repository, GOLDEN, case="image1")}


def test_every_figure_is_within_its_tolerance(figures: dict[str, Figure]) -> None:
    assert [figure for figure in figures.values() if not figure.holds] == []


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("boxes equal of 22", 22),
        ("labels: equal of 22", 22),
        ("labels with the CLIP RoI of the prompt's box: equal of 8", 8),
        ("labels of drawn RoIs: equal of 29", 29),
    ],
)
def test_boxes_and_labels_are_the_recorded_ones(figures: dict[str, Figure], name: str, count: int) -> None:
    assert figures[f"image1 {name}"].value == count


def test_the_features_differ_by_their_storage_alone(figures: dict[str, Figure]) -> None:
    beyond = {name: figure.value for name, figure in figures.items() if "beyond its storage" in name}
    assert len(beyond) == 6
    assert max(beyond.values()) < 1e-3
