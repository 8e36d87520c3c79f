"""The three recognisers on the full-size network with the stand-in weights: they run, and cost what the layers say."""

from pathlib import Path

import numpy as np
import pytest

from service.baselines.opening import Baselines
from service.client.options import SegmentOptions
from service.evaluation.generated import generate
from service.evaluation.panel import KINDS
from service.settings import Settings
from tests.export.repositories import exported
from tests.export.standin import standin_network

pytestmark = pytest.mark.full_size
NAMES = ("cat", "dog", "cup", "plate", "tree")


def test_every_recogniser_names_a_region_at_the_cost_of_the_layers_it_runs(tmp_path: Path) -> None:
    """GFLOP of the layers: trunk 997, adapter 1,108, pyramid 127; what stand-in weights say means nothing."""
    made = exported("ovsam-rn50x16", standin_network)
    panel = Baselines(Settings(cache_dir=tmp_path)).open(made, KINDS, SegmentOptions(names=list(NAMES)))
    view = panel.view(generate(0))
    mask = np.zeros((480, 640), np.bool_)
    mask[100:300, 150:400] = True
    for kind in KINDS:
        names, seconds = panel.recognise(kind, view, mask)
        print(f"{kind}: {names[:2]}, {seconds:.2f} s, {panel.prompt_flops(kind) / 1e9:.2f} GFLOP")
        assert sorted(names) == sorted(NAMES)
    assert panel.image_flops() / 1e9 == pytest.approx(997 + 1108 + 127, rel=0.02)
    assert panel.prompt_flops("image-crop") / 1e9 == pytest.approx(997, rel=0.02)
    assert panel.prompt_flops("feature-crop") < panel.prompt_flops("ovsam") < 1e9
