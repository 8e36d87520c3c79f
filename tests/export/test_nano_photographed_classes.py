"""Classes beside ImageNet's: what they are learnt from, what they learn, and what they leave alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from export.nano import photographed_classes
from export.nano.graphs import INPUT_SIZE, ImageEncoderGraph, at_two_scales, pool
from export.nano.network import Neck
from export.nano.photographed_classes import (
    ClassesConfig,
    Examples,
    frequent_nouns,
    photographed_examples,
    train_classes,
)
from export.nano.photographs import Photograph
from export.nano.recognition import FEATURES
from export.nano.trunk import Trunk

WORDS = (None, "face", "sky")
CLEAR, SMALL, TALL = 0, 1, 2


@pytest.fixture
def trunk(monkeypatch: pytest.MonkeyPatch) -> Trunk:
    torch.manual_seed(3)
    trunk = Trunk().eval()
    monkeypatch.setattr(photographed_classes, "load_trunk", lambda _: (trunk, torch.empty(0), torch.empty(0)))
    return trunk


@pytest.fixture
def photograph(monkeypatch: pytest.MonkeyPatch) -> Photograph:
    """As wide as the model frame, so that the first view shows it as it is; one mask is too small to learn from."""
    image = np.random.default_rng(0).integers(0, 256, (384, INPUT_SIZE, 3), np.uint8)
    masks = np.zeros((3, 384, INPUT_SIZE), np.bool_)
    masks[CLEAR, 100:250, 90:300] = True
    masks[SMALL, 10:16, 10:16] = True
    masks[TALL, :, 400:] = True
    photograph = Photograph(image, masks, ("thing", "part", "thing"), ("man", "eye", None))
    monkeypatch.setattr(photographed_classes, "load_annotated", lambda _: [photograph])
    return photograph


def examples(seed: int) -> tuple[Examples, Tensor]:
    """Three kinds of regions, told apart by a hundred features each; ImageNet is as sure of one as of another."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.arange(300) % 3
    features = torch.randn(300, FEATURES, generator=generator)
    for kind in range(3):
        features[kinds == kind, 100 * kind : 100 * (kind + 1)] += 2
    nouns = tuple(WORDS[kind] for kind in kinds)
    return Examples(features, nouns, tuple(range(300))), torch.randn(300, 20, generator=generator)


def test_classes_learn_their_nouns_and_leave_the_rest_to_imagenet() -> None:
    seen, published = examples(0)
    weight, bias = train_classes(seen, ["face", "sky"], published, ClassesConfig(steps=100))
    unseen, published = examples(1)
    logits = torch.cat([unseen.features @ weight.T + bias, published], dim=1)
    probabilities = torch.stack([*logits.softmax(1)[:, :2].T, logits.softmax(1)[:, 2:].sum(1)], dim=1)
    wanted = torch.tensor([("face", "sky", None).index(noun) for noun in unseen.nouns])
    hits = probabilities.argmax(1) == wanted
    assert [float(hits[wanted == kind].float().mean()) for kind in range(3)] == pytest.approx([1, 1, 1], abs=0.1)


def test_a_noun_of_few_photographs_is_no_class() -> None:
    """However often each of them shows it."""
    rows = [("sky", 0), ("sky", 1), ("sky", 2), *[("mast", 4)] * 9, (None, 5), (None, 6), (None, 7)]
    nouns, photographs = zip(*rows, strict=True)
    assert frequent_nouns(Examples(torch.empty(0), nouns, photographs), 3) == ["sky"]


@torch.no_grad()
def test_a_region_is_seen_as_the_region_encoder_sees_it(trunk: Trunk, photograph: Photograph, tmp_path: Path) -> None:
    """In a whole photograph; what few pixels show is left out, and a man is a person."""
    found = photographed_examples(tmp_path, ClassesConfig(views=1))
    assert found.nouns == ("person", None)
    frame = torch.zeros(1, INPUT_SIZE, INPUT_SIZE, 3, dtype=torch.uint8)
    frame[0, :384] = torch.from_numpy(photograph.image)
    maps = ImageEncoderGraph(trunk, Neck())(frame, torch.tensor([[384, INPUT_SIZE]], dtype=torch.int32))
    masks = torch.zeros(1, 2, 128, 128)
    for target, mask in zip(masks[0], photograph.masks[[CLEAR, TALL]], strict=True):
        target[:96] = torch.from_numpy(mask[2::4, 2::4])
    deep, shallow, halved = (pool(level.float(), masks) for level in maps[3:])
    wanted = torch.cat([at_two_scales(deep, halved, masks), shallow], dim=2)[0]
    torch.testing.assert_close(found.features, wanted, rtol=0.02, atol=0.02)


@pytest.mark.usefixtures("trunk", "photograph")
def test_a_window_that_cuts_a_thing_off_does_not_teach_it(tmp_path: Path) -> None:
    """The tall one reaches from edge to edge: it counts in the whole photograph alone."""
    found = photographed_examples(tmp_path, ClassesConfig(views=8))
    assert found.nouns.count(None) == 1
    assert 1 < found.nouns.count("person") <= 8
    assert set(found.photographs) == {0}
    assert found.features.shape == (len(found.nouns), FEATURES)
