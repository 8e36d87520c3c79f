"""A real Label Studio drives the bundled model: clicks, rectangles and whole tasks, as its editor would.

Opt-in, since Label Studio is an application of its own and takes minutes to make its database:

    python3 -m venv DIR && DIR/bin/pip install label-studio
    OVSAM_LABEL_STUDIO=DIR/bin/label-studio pytest tests/end_to_end/test_label_studio_real.py
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from service.core.types import BoolArray
from tests.brush_decoder import decode_brush
from tests.end_to_end.label_studio_server import Studio, label_studio

EXECUTABLE = os.environ.get("OVSAM_LABEL_STUDIO", "")
pytestmark = pytest.mark.skipif(not EXECUTABLE, reason="OVSAM_LABEL_STUDIO names no label-studio executable")
FOLDER = Path(__file__).parents[1] / "evaluation_set"
SOURCES = {"raccoon": "composite-044.jpg", "watermelon": "composite-058.jpg"}
NAMES = tuple(SOURCES)
LABELS = "".join(f'<Label value="{name}"/>' for name in (*NAMES, "guitar", "cup"))
CONFIG = f"""<View><Image name="image" value="$image"/>
  <BrushLabels name="brush" toName="image">{LABELS}</BrushLabels>
  <KeyPointLabels name="kp" toName="image" smart="true"><Label value="auto" smart="true"/></KeyPointLabels>
  <RectangleLabels name="box" toName="image" smart="true"><Label value="auto"/></RectangleLabels></View>"""

BESIDE = f"""<View><Image name="image" value="$image" rotateControl="true"/>
  <Brush name="brush" toName="image"/><Labels name="labels" toName="image">{LABELS}</Labels>
  <KeyPoint name="kp" toName="image" smart="true"/></View>"""


@dataclass
class Thing:
    """An object of the picture: its mask, a click and its box, in pixels."""

    mask: BoolArray
    point: tuple[float, float]
    box: tuple[float, float, float, float]


@dataclass
class Project:
    studio: Studio
    task: int
    model: int
    things: dict[str, Thing]
    picture: Path


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("studio")
    things = draw_picture(folder / "picture.png")
    with label_studio(EXECUTABLE, folder) as studio:
        task, model = studio.project(CONFIG, folder / "picture.png")
        yield Project(studio, task, model, things, folder / "picture.png")


def draw_picture(path: Path) -> dict[str, Thing]:
    """Two objects of the evaluation set, side by side on a plain ground."""
    coco = COCO(FOLDER / "annotations.json")
    picture = np.full((360, 560, 3), 226, np.uint8)
    things = {}
    for left, (name, file) in zip((20, 270), SOURCES.items(), strict=True):
        (image,) = [image for image in coco.dataset["images"] if image["file_name"] == file]
        (item,) = [a for a in coco.imgToAnns[image["id"]] if coco.cats[a["category_id"]]["name"] == name]
        pixels = np.asarray(Image.open(FOLDER / "images" / file).convert("RGB"))
        x, y, width, height = (round(side) for side in item["bbox"])
        cut = coco.annToMask(item)[y : y + height, x : x + width].astype(bool)
        mask = np.zeros(picture.shape[:2], np.bool_)
        mask[40 : 40 + height, left : left + width] = cut
        picture[mask] = pixels[y : y + height, x : x + width][cut]
        point = (item["point"][0] - x + left, item["point"][1] - y + 40)
        things[name] = Thing(mask, point, (left, 40, left + width, 40 + height))
    Image.fromarray(picture).save(path)
    return things


def region(name: str, kind: str, value: dict[str, Any], mask: BoolArray) -> dict[str, Any]:
    height, width = mask.shape
    size = {"original_width": width, "original_height": height, "image_rotation": 0}
    return {"from_name": name, "to_name": "image", "type": kind, **size, "value": {**value, kind: ["auto"]}}


def click(thing: Thing) -> dict[str, Any]:
    height, width = thing.mask.shape
    value = {"x": 100 * (thing.point[0] + 0.5) / width, "y": 100 * (thing.point[1] + 0.5) / height, "width": 0.2}
    return {**region("kp", "keypointlabels", value, thing.mask), "is_positive": True}


def rectangle(thing: Thing) -> dict[str, Any]:
    height, width = thing.mask.shape
    x1, y1, x2, y2 = thing.box
    sides = {"x": 100 * x1 / width, "y": 100 * y1 / height}
    value = {**sides, "width": 100 * (x2 - x1) / width, "height": 100 * (y2 - y1) / height, "rotation": 0}
    return region("box", "rectanglelabels", value, thing.mask)


def overlap(found: dict[str, Any], thing: Thing) -> float:
    height, width = thing.mask.shape
    mask = decode_brush(found["value"]["rle"], width=width, height=height)
    return float(np.count_nonzero(mask & thing.mask) / np.count_nonzero(mask | thing.mask))


@pytest.mark.parametrize("draw", [click, rectangle])
@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_gives_the_objects_mask_and_name(project: Project, name: str, draw: Any) -> None:
    (found,) = project.studio.prompt(project.task, project.model, draw(project.things[name]))
    assert found["value"]["brushlabels"] == [name]
    assert overlap(found, project.things[name]) >= 0.8


def test_the_second_prompt_costs_no_encode(project: Project) -> None:
    project.studio.prompt(project.task, project.model, click(project.things[NAMES[0]]))
    before = project.studio.encodes()
    project.studio.prompt(project.task, project.model, rectangle(project.things[NAMES[1]]))
    assert project.studio.encodes() == before > 0


def test_a_brush_beside_labels_is_answered_by_a_pair_in_a_turned_view_too(project: Project) -> None:
    task, model = project.studio.project(BESIDE, project.picture)
    thing = project.things[NAMES[1]]
    prompt = click(thing) | {"type": "keypoint", "image_rotation": 90}
    shape, label = project.studio.prompt(task, model, prompt)
    assert (shape["id"], shape["type"], label["type"]) == (label["id"], "brush", "labels")
    assert label["value"]["labels"] == [NAMES[1]]
    assert shape["image_rotation"] == 90
    assert overlap(shape, thing) >= 0.8


def test_predictions_are_retrieved_for_the_whole_task(project: Project) -> None:
    found = project.studio.retrieve_predictions(project.task)
    for name in NAMES:
        masks = [item for item in found if item["value"]["brushlabels"] == [name]]
        assert max((overlap(item, project.things[name]) for item in masks), default=0.0) >= 0.8
