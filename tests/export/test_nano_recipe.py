"""nano's recipe on toy material: scenes repeat, prompts hit their objects, twenty steps lower the loss."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from export.nano.cutouts import Cutout
from export.nano.network import Prompts
from export.nano.prompts import Batch, PromptSettings, correct, first_prompt, prompted
from export.nano.scenes import TRAINING, Composer, Hardship, read_scene, write_scene
from export.nano.sprites import drawn_parts
from export.nano.train import MaskNetwork, TrainingConfig, learning_rate, mask_loss, training_loss
from export.nano.trunk import CHANNELS, Trunk


@pytest.fixture
def toy_composer(tmp_path: Path) -> Composer:
    """Two cut-outs, a disc and a bar, and no photographs."""
    (tmp_path / "cutouts").mkdir()
    disc, bar = np.zeros((2, 96, 96, 4), np.uint8)
    cv2.circle(disc, (48, 48), 47, (20, 40, 220, 255), -1)
    bar[:, 30:60] = (200, 90, 10, 255)
    for name, picture in (("disc", disc), ("bar", bar)):
        cv2.imwrite(str(tmp_path / "cutouts" / f"{name}.png"), picture)
    cutouts = [Cutout(f"{name}.png", "toy", name, (), held_out=False) for name in ("disc", "bar")]
    return Composer(tmp_path, cutouts, [])


def test_equal_seeds_compose_equal_scenes(toy_composer: Composer) -> None:
    """A scene is a function of its seed, so that the recipe can be repeated."""
    first, again, other = (toy_composer.compose(np.random.default_rng(seed), 128) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert first.names == again.names
    assert not np.array_equal(first.image, other.image)


def test_every_label_of_a_scene_is_one_of_its_objects(toy_composer: Composer) -> None:
    """Labels index the names; nothing else may be painted."""
    for seed in range(5):
        scene = toy_composer.compose(np.random.default_rng(seed), 128)
        assert scene.labels.max() <= len(scene.names)


def test_a_first_prompt_lies_on_its_object() -> None:
    """Clicks inside the mask; boxes around it up to the jitter."""
    mask = np.zeros((64, 64), np.bool_)
    mask[10:40, 20:50] = True
    for seed in range(40):
        coords, labels = first_prompt(np.random.default_rng(seed), mask, PromptSettings(box_jitter=0.0), off_centre=0.5)
        for (x, y), label in zip(coords, labels, strict=True):
            if label == 1:
                assert mask[int(y), int(x)]
        if labels[0] == 2:
            np.testing.assert_allclose(coords[:2], [[19.5, 9.5], [49.5, 39.5]])


def test_a_corrective_click_lands_in_the_largest_error() -> None:
    """A missed part gets a foreground click, a spilled one a background click."""
    target = np.zeros((1, 2, 16, 16), np.float32)
    target[:, :, 4:12, 4:12] = 1
    logits = np.where(target > 0, 5.0, -5.0).astype(np.float32)
    logits[0, 0, 4:12, 8:12] = -5
    logits[0, 1, 4:12, 12:16] = 5
    coords, labels = np.zeros((1, 2, 6, 2), np.float32), np.full((1, 2, 6), -1, np.int64)
    correct(logits, target, coords, labels)
    assert labels[0, :, 2].tolist() == [1, 0]
    assert 4 * 8 <= coords[0, 0, 2, 0] < 4 * 12 <= coords[0, 1, 2, 0] < 4 * 16


def test_the_loss_prefers_the_true_mask_to_empty_and_full_ones() -> None:
    """SAM's plain weights collapse to empty masks at this size; these must not."""
    target = torch.zeros(1, 1, 16, 16)
    target[..., 4:9, 4:9] = 1
    true, empty, full = (
        mask_loss(6.0 * logits, target).item()
        for logits in (2 * target - 1, -torch.ones(1, 1, 16, 16), torch.ones(1, 1, 16, 16))
    )
    assert true < 0.2 < min(empty, full)


def test_the_learning_rate_warms_up_and_ends_low() -> None:
    """Linear up, cosine down."""
    config = TrainingConfig(steps=1000)
    rates = [learning_rate(config, step) for step in (0, 99, 500, 999)]
    assert rates[0] < 0.02 * rates[1]
    assert rates[1] > rates[2] > rates[3]
    assert rates[3] == pytest.approx(config.final_learning_rate, rel=0.05)


def test_training_scenes_hold_assemblies_and_many_pieces(toy_composer: Composer) -> None:
    """What an assembly is made of counts as one object, whatever colours its parts have."""
    hard = dataclasses.replace(toy_composer, hardship=Hardship(assembled=0.9, many_pieces=1.0, dominant=1.0))
    scenes = [hard.compose(np.random.default_rng(seed), 128) for seed in range(8)]
    nameless = [(scene, label) for scene in scenes for label, name in enumerate(scene.names, 1) if not name]
    assert len(nameless) > 8
    large = [scene.image[scene.labels == label] for scene, label in nameless if (scene.labels == label).sum() > 500]
    assert max(pixels.std(0).max() for pixels in large) > 30
    easy = [toy_composer.compose(np.random.default_rng(seed), 128) for seed in range(8)]
    assert sum(not name for scene in easy for name in scene.names) < len(nameless)


def test_a_drawing_has_its_compact_colours_as_parts() -> None:
    """An eye counts with the pupil that it encloses; the body itself is none."""
    drawing = np.zeros((100, 100, 4), np.uint8)
    cv2.circle(drawing, (50, 50), 48, (10, 10, 10, 255), -1)
    cv2.circle(drawing, (50, 50), 45, (220, 180, 40, 255), -1)
    cv2.circle(drawing, (50, 40), 20, (250, 250, 250, 255), -1)
    cv2.circle(drawing, (50, 40), 6, (30, 60, 200, 255), -1)
    sprite = drawing.astype(np.float32) / (1, 1, 1, 255)
    found = [drawn_parts(np.random.default_rng(seed), sprite.astype(np.float32)) for seed in range(10)]
    eye = [parts for parts in found if parts[40, 70 - 3]]
    assert eye
    assert all(parts[40, 50] == parts[40, 67] for parts in eye)
    assert not any(parts[80, 50] for parts in found)


def test_parts_of_training_scenes_lie_on_their_objects(toy_composer: Composer) -> None:
    """And come back from the disk as they were composed; scenes that are measured have none."""
    hard = dataclasses.replace(toy_composer, hardship=TRAINING)
    scenes = [hard.compose(np.random.default_rng(seed), 128) for seed in range(8)]
    assert sum(len(set(scene.parts.flat)) - 1 for scene in scenes) > 8
    assert not any(scene.parts[scene.labels == 0].any() for scene in scenes)
    assert not toy_composer.compose(np.random.default_rng(0), 128).parts.any()
    (toy_composer.work / "scenes" / "train").mkdir(parents=True)
    write_scene(toy_composer.work, "train", 0, scenes[0], quality=90)
    stored = read_scene(toy_composer.work, "train", 0)
    np.testing.assert_array_equal(stored.labels, scenes[0].labels)
    np.testing.assert_array_equal(stored.parts, scenes[0].parts)
    cv2.imwrite(str(toy_composer.work / "scenes/train/00000.png"), scenes[0].labels)
    with pytest.raises(ValueError, match="earlier recipe"):
        read_scene(toy_composer.work, "train", 0)


def test_a_prompt_for_a_part_asks_for_that_part(toy_composer: Composer) -> None:
    """Its click lies inside, so that the target is what lies under it."""
    hard = dataclasses.replace(toy_composer, hardship=TRAINING)
    scene = next(
        scene for scene in (hard.compose(np.random.default_rng(seed), 128) for seed in range(20)) if scene.parts.any()
    )
    settings = PromptSettings(per_image=8, boxes=0.0, background=0.0, parts=1.0, smallest_object=30)
    _, _, targets, coords, labels = prompted(np.random.default_rng(1), scene, size=128, settings=settings)
    whole = dataclasses.replace(settings, parts=0.0)
    _, _, wholes, *_ = prompted(np.random.default_rng(1), scene, size=128, settings=whole)
    assert targets.sum((1, 2)).mean() < wholes.sum((1, 2)).mean()
    for target, places, kinds in zip(targets, coords, labels, strict=True):
        (x, y) = places[kinds == 1][0].astype(int) // 4
        assert target[y, x] > 0


def test_twenty_steps_lower_the_loss(toy_composer: Composer) -> None:
    """The network, the loss and the prompts fit together: a tiny run learns."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    scenes = [toy_composer.compose(rng, 64) for _ in range(2)]
    settings = PromptSettings(per_image=2, smallest_object=20)
    rows = [prompted(np.random.default_rng(5), scene, size=64, settings=settings) for scene in scenes]
    batch = Batch(*(torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)))
    network, trunk = MaskNetwork(), Trunk().eval().requires_grad_(requires_grad=False)
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3)
    losses = []
    for _ in range(20):
        loss, _ = training_loss(network, trunk, batch, corrections=0)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_unused_slots_have_no_influence() -> None:
    """Whatever lies in a slot labelled -1, and however many there are, the logits stay."""
    torch.manual_seed(0)
    network = MaskNetwork().eval()
    maps, halved = (
        {stride: torch.rand(1, count, side // stride, side // stride) for stride, count in CHANNELS.items()}
        for side in (64, 32)
    )
    features = network.neck(maps, halved)
    none = torch.zeros(1, 1)
    bare = Prompts(torch.tensor([[[[20.0, 30.0]]]]), torch.tensor([[[1]]]), none[..., None, None], none)
    padded = Prompts(
        torch.tensor([[[[7.0, 50.0], [20.0, 30.0], [1e6, -1e6]]]]),
        torch.tensor([[[-1, 1, -1]]]),
        none[..., None, None],
        none,
    )
    torch.testing.assert_close(network.decoder(features, bare), network.decoder(features, padded), atol=1e-5, rtol=0)
