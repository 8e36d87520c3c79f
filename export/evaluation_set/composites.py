"""Compose the half of the evaluation set whose masks are exact, from concepts that nano never trained on."""

import argparse
from pathlib import Path

import cv2
import numpy as np

from export.evaluation_set.coco import FOLDER, Picture, Thing, write
from export.nano.cutouts import HELD_OUT
from export.nano.scenes import SCENE_SIZE, Composer, Scene, composer

SEEDS = (5, 13, 20, 24, 29, 30, 37, 39, 44, 45, 46, 54, 58, 59, 63, 64, 66, 69, 71)
"""Scenes whose objects a person can name; chosen by eye, among scenes of the surfaces and drawings of that day.

A rerun with other ingredients composes other scenes, and seeds have to be chosen again.
"""
AUTHOR = "Fluent Emoji (Microsoft), Noto Emoji (Google), Twemoji (Twitter and others), Open Clip Art, Poly Haven"
LICENCE = "CC BY 4.0 and more permissive parts"
SMALLEST_AREA = 300
WHOLE = 0.8
"""Share of the visible area that has to hang together: less is an object cut up by what lies on it."""


def _named(scenes: Composer) -> Composer:
    """Only cut-outs whose caption is one plain held-out noun, so that the name is beyond dispute."""
    return Composer(scenes.work, [c for c in scenes.cutouts if c.name in HELD_OUT], scenes.photographs)


def _things(scene: Scene) -> list[Thing]:
    """The named objects that are still large and in one piece."""
    things = []
    for label, name in enumerate(scene.names, 1):
        mask = scene.labels == label
        _, _, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        largest = statistics[1:, cv2.CC_STAT_AREA].max(initial=0)
        if name and largest >= SMALLEST_AREA and largest >= WHOLE * mask.sum():
            things.append(Thing(name, mask))
    return things


def _picture(scenes: Composer, seed: int) -> Picture:
    scene = scenes.compose(np.random.default_rng(seed), SCENE_SIZE)
    file_name = f"composite-{seed:03d}.jpg"
    encoding = [cv2.IMWRITE_JPEG_QUALITY, 88]
    cv2.imwrite(str(FOLDER / "images" / file_name), cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR), encoding)
    size = (SCENE_SIZE, SCENE_SIZE)
    return Picture(file_name, size, AUTHOR, f"export/nano/scenes.py, seed {seed}", LICENCE, _things(scene))


def main() -> None:
    """Render the composites and replace their entries in annotations.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/nano"), help="folder of nano's prepared cut-outs")
    scenes = _named(composer(parser.parse_args().work, "held_out"))
    write([_picture(scenes, seed) for seed in SEEDS], kind="composite")


if __name__ == "__main__":
    main()
