"""Photographs with masks drawn by hand: the committed masks, and how they become things to click and to paste."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from export.nano import ingredients, photographs
from export.nano.cutouts import HELD_OUT
from export.nano.photographs import Photograph, cut_out, load_annotated
from export.nano.prompts import PromptSettings, prompted_photograph
from export.nano.scenes import TRAINING, Composer

ROWS = json.loads(photographs.INDEX.read_text(encoding="utf-8"))


@pytest.fixture
def house() -> Photograph:
    """A red house with a green door before a gray wall; the door also lies in a larger part, the front."""
    image = np.full((120, 160, 3), 90, np.uint8)
    house, front, door, wall = np.zeros((4, 120, 160), np.bool_)
    house[30:110, 40:120] = True
    front[60:110, 40:120] = True
    door[80:110, 70:90] = True
    wall[~house] = True
    image[house], image[door] = (220, 20, 20), (20, 220, 20)
    return Photograph(
        image, np.stack([house, front, door, wall]), ("thing", "part", "part", "stuff"), ("house", None, "door", "wall")
    )


def test_masks_are_of_known_packages_and_never_of_a_picture_that_is_measured() -> None:
    """Kinds and licences are known, masks have the size of their picture, nothing that is measured is among them."""
    names = {package.name for package in ingredients.PACKAGES}
    measured = {"scikit-image", "scikit-learn", "scipy", "sporco"}  # service/transports/web/samples/LICENCES.md
    for row in ROWS:
        assert row["package"] in names
        assert row["package"] not in measured
        assert row["licence"] in {"public domain", "CC0-1.0", "Apache-2.0", "CC-BY-2.0", "CC-BY-3.0", "CC-BY-4.0"}
        assert row["author"]
        for item in row["masks"]:
            assert item["kind"] in {"thing", "part", "stuff"}
            assert item.get("noun", "a").replace(" ", "").isalpha()
            mask = coco_mask.decode({"size": row["size"], "counts": item["counts"]})
            assert mask.any()
    assert sum(len(row["masks"]) for row in ROWS) > 500


def test_concepts_held_out_are_not_trained_on() -> None:
    """Photographs of what the held-out scenes show serve to choose weights by."""
    for row in ROWS:
        names = [item["name"] for item in row["masks"]] + [item.get("noun", "") for item in row["masks"]]
        shown = {word for name in names for word in name.replace("-", "_").replace(" ", "_").split("_")}
        assert row["validation"] or not shown & HELD_OUT, row["path"]


def test_photographs_come_from_their_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 768 pixels long; a package that holds another picture is refused."""
    mask = np.zeros((900, 1200), np.uint8)
    mask[100:500, 200:800] = 1
    counts = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
    row = {"package": "matplotlib", "path": "a/b.jpg", "size": [900, 1200], "validation": False}
    index = tmp_path / "index.json"
    item = {"kind": "thing", "counts": counts}
    index.write_text(json.dumps([row | {"masks": [item | {"name": "x1", "noun": "x"}, item | {"name": "y"}]}]))
    monkeypatch.setattr(photographs, "INDEX", index)
    picture = tmp_path / "source/matplotlib/a/b.jpg"
    picture.parent.mkdir(parents=True)
    cv2.imwrite(str(picture), np.full((900, 1200, 3), 7, np.uint8))
    (found,) = load_annotated(tmp_path)
    assert found.image.shape == (576, 768, 3)
    assert found.masks.sum() == pytest.approx(2 * mask.sum() * 0.64**2, rel=0.01)
    assert found.nouns == ("x", None)
    assert not load_annotated(tmp_path, validation=True)
    cv2.imwrite(str(picture), np.full((600, 1200, 3), 7, np.uint8))
    with pytest.raises(ValueError, match="1200 x 900"):
        load_annotated(tmp_path)


def test_windows_move_masks_with_the_picture(house: Photograph) -> None:
    """Under turning, stretching and mirroring the house's target is where the picture is not gray."""
    settings = PromptSettings(per_image=4, boxes=0.0, photographed_parts=0.0, stuff=0.0)
    seen = []
    for seed in range(12):
        image, valid, targets, coords, labels = prompted_photograph(
            np.random.default_rng(seed), house, size=128, settings=settings
        )
        colour = image[: valid[0], : valid[1]].astype(int)
        coloured = np.ptp(colour, axis=2) > 60  # unless the picture was turned to gray
        if not coloured.any():
            continue
        shown = np.zeros((128, 128), np.bool_)
        shown[: valid[0], : valid[1]] = coloured
        target = np.kron(targets[0] > 0.5, np.ones((4, 4), np.bool_))
        seen.append((shown & target).sum() / (shown | target).sum())
        x, y = coords[0][labels[0] == 1][0].astype(int)
        assert shown[y, x]
    assert min(seen) > 0.85
    assert len(seen) > 8


def test_prompts_mean_what_the_settings_say(house: Photograph) -> None:
    """Parts alone ask for less than things alone."""
    areas = {}
    for name, settings in {
        "parts": PromptSettings(photographed_parts=1.0, stuff=0.0),
        "things": PromptSettings(photographed_parts=0.0, stuff=0.0),
    }.items():
        rows = [prompted_photograph(np.random.default_rng(s), house, size=128, settings=settings)[2] for s in range(6)]
        areas[name] = np.mean([(targets > 0.5).mean() for targets in rows])
    assert areas["parts"] < areas["things"]


def test_things_are_cut_out_with_their_parts(house: Photograph) -> None:
    """Neither wall nor door is a thing of its own; both parts lie within the house."""
    (thing,) = cut_out(house)
    assert thing.pixels.shape == (80, 80, 4)
    assert thing.parts.sum((1, 2)).tolist() == [50 * 80, 30 * 20]
    assert thing.pixels[40, 40, 3] == 255


def test_scenes_hold_photographed_things(house: Photograph, tmp_path: Path) -> None:
    """As they are: most of what is labelled is red or green, and its parts never overlap."""
    everything = dataclasses.replace(TRAINING, photographed=1.0, camouflaged=0.0, dominant=1.0)
    composer = Composer(tmp_path, [], [], everything, cut_out(house))
    scenes = [composer.compose(np.random.default_rng(seed), 128) for seed in range(6)]
    colours = np.concatenate([scene.image[scene.labels > 0] for scene in scenes]).astype(int)
    assert (np.ptp(colours, axis=1) > 60).mean() > 0.8
    assert any(scene.parts.any() for scene in scenes)
    assert not any(scene.parts[scene.labels == 0].any() for scene in scenes)
