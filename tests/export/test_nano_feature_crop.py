"""nano's region encoder gives the feature-crop baseline beside its own embedding, from the same pooled features."""

import torch

from export.nano.export import REGION_GROUP
from export.nano.graphs import BUNDLE, INPUT_SIZE, LOW_RES_SIZE, Classifier, RegionEncoderGraph, mask_boxes
from export.nano.recognition import DrawingGate, RegionHead

WIDTH = 384


def classifier(classes: int, features: int, *, seed: int) -> Classifier:
    generator = torch.Generator().manual_seed(seed)
    texts = torch.nn.functional.normalize(torch.randn(classes, WIDTH, generator=generator), dim=1)
    return Classifier(torch.randn(classes, features, generator=generator), torch.zeros(classes), texts)


def graph(*, trained: bool, photographed: bool = False) -> RegionEncoderGraph:
    deepest, shallow = BUNDLE["region_32"][0], BUNDLE["region_16"][0]
    more = classifier(40, deepest + shallow, seed=3) if photographed else None
    torch.manual_seed(1)
    head = (RegionHead().eval(), DrawingGate().eval()) if trained else None
    return RegionEncoderGraph(classifier(1000, deepest, seed=0), more, head).eval()


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
def test_the_baseline_knows_nothing_of_the_photographs_classes() -> None:
    """They stand beside ImageNet's in the model's own answer alone, be they as sure as can be."""
    _, baseline = graph(trained=False)(*inputs())
    network = graph(trained=False, photographed=True)
    assert network.photographed is not None
    network.photographed.bias += 1e3
    own, still = network(*inputs())
    torch.testing.assert_close(still, baseline)
    assert (own - baseline)[0, 0].norm() > 1e-3


@torch.inference_mode()
def test_a_class_that_is_beyond_doubt_gives_its_text() -> None:
    """Whichever of the two classifiers has it."""
    for name, place in (("published", 7), ("photographed", 5)):
        network = graph(trained=False, photographed=True)
        sure = network.get_submodule(name)
        assert isinstance(sure, Classifier)
        sure.bias[place] = 1e6
        torch.testing.assert_close(network(*inputs())[0][0, 0], sure.texts[place])


@torch.inference_mode()
def test_both_are_of_unit_length_and_zero_for_an_empty_mask() -> None:
    for embedding in graph(trained=True)(*inputs()):
        torch.testing.assert_close(embedding[0].norm(dim=1), torch.tensor([1.0, 0.0]))
