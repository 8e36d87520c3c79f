"""The naive recognisers over an exported repository say what the torch network says, fed by hand."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from export.graphs import ImageEncoderGraph
from export.network.region_head import roi_align
from service.baselines.opening import Baselines
from service.baselines.panel import Panel
from service.baselines.recognisers import FEATURE_OUTPUT
from service.baselines.regions import cropped
from service.client.options import SegmentOptions
from service.core.types import BoolArray, UInt8Array
from service.evaluation.panel import KINDS
from service.settings import Settings
from tests.export.tiny_network import TINY, tiny_network

BUNDLED = Path(__file__).resolve().parents[2] / "model_repository"
SIZE = TINY.input_size
NAMES = ("cat", "dog", "cup", "plate", "tree")


@pytest.fixture(scope="module")
def picture() -> UInt8Array:
    """As large as the model frame, so that nothing is resized."""
    ramp = np.linspace(0, 255, SIZE)
    noise = np.random.default_rng(0).integers(0, 60, (SIZE, SIZE, 3))
    return np.clip(noise + ramp[:, None, None] * 0.4 + ramp[None, :, None] * 0.4, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def mask() -> BoolArray:
    """Whole cells of the low-res mask and of the deepest map."""
    mask = np.zeros((SIZE, SIZE), np.bool_)
    mask[32:96, 64:128] = True
    return mask


@pytest.fixture(scope="module")
def panel(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Panel:
    settings = Settings(cache_dir=tmp_path_factory.mktemp("cache"), threads=1)
    return Baselines(settings).open(tiny_repository, KINDS, SegmentOptions(names=list(NAMES)))


def deepest_map(pixels: UInt8Array) -> Tensor:
    size = torch.tensor([pixels.shape[:2]], dtype=torch.int32)
    frame = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    frame[0, : pixels.shape[0], : pixels.shape[1]] = pixels
    _, maps = ImageEncoderGraph(tiny_network()).eval().features(torch.from_numpy(frame), size)
    return maps["c5"]


def close(panel: Panel, kind: str, picture: UInt8Array, mask: BoolArray, *, expected: Tensor) -> bool:
    """Whether a recogniser's embedding points where the torch network's does, but for a byte's worth of rounding."""
    ((_, found),) = panel._recognisers[kind].embed(panel.view(encoded(picture)), mask).items()
    unit = torch.nn.functional.normalize(expected, dim=-1)[0].numpy()
    print(f"{kind}: cosine {float(found[0, 0] @ unit):.6f}")
    return float(found[0, 0] @ unit) > 0.999


@torch.inference_mode()
def test_a_feature_crop_is_the_mean_under_the_mask_through_the_attention_pool(
    panel: Panel, picture: UInt8Array, mask: BoolArray
) -> None:
    mean = deepest_map(picture)[0][:, torch.from_numpy(mask[::32, ::32])].mean(1)
    constant = mean[None, :, None, None].expand(-1, -1, TINY.clip_cells, TINY.clip_cells)
    pooled = tiny_network().attention_pool(constant)
    assert close(panel, "feature-crop", picture, mask, expected=pooled)
    assert not close(panel, "feature-crop", picture, ~mask, expected=pooled)


@torch.inference_mode()
def test_an_image_crop_is_the_cut_out_object_encoded_anew(panel: Panel, picture: UInt8Array, mask: BoolArray) -> None:
    crop = cv2.resize(cropped(picture, mask), (SIZE, SIZE), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    box = torch.tensor([[0.0, 0.0, SIZE, SIZE]])
    region = roi_align(deepest_map(crop), box, torch.zeros(1, dtype=torch.int64), TINY.clip_cells, 32.0)
    pooled = tiny_network().attention_pool(region)
    assert close(panel, "image-crop", picture, mask, expected=pooled)
    assert not close(panel, "image-crop", picture, ~mask, expected=pooled)


def encoded(picture: UInt8Array) -> bytes:
    return cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes()


def test_only_image_crops_pay_for_an_encoder_again(panel: Panel, picture: UInt8Array, mask: BoolArray) -> None:
    view = panel.view(encoded(picture))
    for kind in KINDS:
        names, seconds = panel.recognise(kind, view, mask)
        assert sorted(names) == sorted(NAMES)
        assert seconds > 0
    costs = {kind: panel.prompt_flops(kind) for kind in KINDS}
    assert 0 < costs["feature-crop"] < costs["ovsam"] < costs["image-crop"] < panel.image_flops()


def test_both_models_offer_every_kind_and_one_that_pools_unseen_offers_no_feature_crop(
    tiny_repository: Path, tmp_path: Path
) -> None:
    """The full model's maps can be pooled from outside; nano's region encoder pools by itself, and has to say so."""
    baselines = Baselines(Settings(cache_dir=tmp_path))
    assert list(baselines.kinds(tiny_repository)) == list(KINDS)
    assert list(baselines.kinds(BUNDLED)) == list(KINDS)
    silent = Path(shutil.copytree(BUNDLED, tmp_path / "silent"))
    config = silent / "region_encoder" / "config.pbtxt"
    config.write_text(config.read_text().replace(FEATURE_OUTPUT, "another_embedding"))
    assert list(baselines.kinds(silent)) == ["ovsam", "image-crop"]
