"""The two choices an export has: float16 graphs, and float16 maps in place of uint8 codes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export.graphs import REGION_MAPS, ImageEncoderGraph, RegionEncoderGraph, region_group
from export.repository import read_config, read_manifest
from tests.export.repositories import exported
from tests.export.tiny_network import TINY, tiny_network


@pytest.fixture(scope="module")
def half_repository() -> Path:
    """The tiny network in float16; the gate has held it against the float32 network."""
    return exported("tiny", tiny_network, precision="float16")


def test_float16_graphs_keep_their_interface(half_repository: Path, tiny_repository: Path) -> None:
    assert read_manifest(half_repository)["precision"] == "float16"
    for model in ("image_encoder", "prompt_decoder", "region_encoder", "text_encoder"):
        half, full = read_config(half_repository / model), read_config(tiny_repository / model)
        assert (half.input, half.output) == (full.input, full.output)


def test_float16_graphs_hold_half_the_weights(half_repository: Path, tiny_repository: Path) -> None:
    sizes = [
        sum(len(weight.raw_data) for weight in onnx.load(folder / "text_encoder/1/model.onnx").graph.initializer)
        for folder in (half_repository, tiny_repository)
    ]
    assert sizes[0] == pytest.approx(sizes[1] / 2, rel=0.05)


@torch.inference_mode()
def test_maps_in_float16_give_the_embeddings_of_maps_in_uint8() -> None:
    network, half_network = tiny_network(), tiny_network()
    half_network.variant = replace(TINY, region_store="float16")
    pixels = torch.randint(0, 256, (1, 128, 128, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = (pixels, torch.tensor([[128, 100]], dtype=torch.int32))
    boxes = torch.tensor([[[10.0, 20.0, 70.0, 90.0]]])
    origin = torch.zeros(1, 2, dtype=torch.int32)
    answers = []
    for each in (network, half_network):
        _, *stored = ImageEncoderGraph(each)(*image)
        assert len(stored) == len(region_group(each.variant.region_store))
        answers.append(RegionEncoderGraph(each)(boxes, origin, origin, *stored))
    assert len(stored) == len(REGION_MAPS)
    for coded, plain in zip(*answers, strict=True):
        np.testing.assert_allclose(coded, plain, atol=2e-2)
