"""nano's region encoder gives the feature-crop baseline beside its own embedding, from the same pooled features."""

import torch

from export.nano.export import REGION_GROUP
from export.nano.graphs import BUNDLE, INPUT_SIZE, LOW_RES_SIZE, RegionEncoderGraph, mask_boxes
from export.nano.recognition import DrawingGate, RegionHead

WIDTH = 384


def graph(*, trained: bool) -> RegionEncoderGraph:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1000, BUNDLE["region_32"][0], generator=generator)
    texts = torch.nn.functional.normalize(torch.randn(1000, WIDTH, generator=generator), dim=1)
    torch.manual_seed(1)
    head = (RegionHead().eval(), DrawingGate().eval()) if trained else None
    return RegionEncoderGraph(weight, torch.zeros(1000), texts, head).eval()


def inputs() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    maps = []
    for name in REGION_GROUP:
        channels, stride = BUNDLE[name]
        maps.append(torch.rand(1, channels, INPUT_SIZE // stride, INPUT_SIZE // stride, generator=generator).half())
    masks = torch.zeros(1, 2, LOW_RES_SIZE, LOW_RES_SIZE, dtype=torch.uint8)
    masks[:, 0, 10:60, 20:90] = 1
    return *maps, mask_boxes(masks.float() - 0.5), masks


@torch.inference_mode()
def test_the_baseline_knows_nothing_of_the_trained_head() -> None:
    """Without the head both outputs are one; with it only the model's own changes."""
    own, baseline = graph(trained=False)(*inputs())
    torch.testing.assert_close(own, baseline)
    trained, still = graph(trained=True)(*inputs())
    torch.testing.assert_close(still, baseline)
    assert (trained - own)[0, 0].norm() > 1e-3


@torch.inference_mode()
def test_both_are_of_unit_length_and_zero_for_an_empty_mask() -> None:
    for embedding in graph(trained=True)(*inputs()):
        torch.testing.assert_close(embedding[0].norm(dim=1), torch.tensor([1.0, 0.0]))
