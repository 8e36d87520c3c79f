"""The page shows what REST answers to the same prompts: the table of test_labelling.py, asked with the mouse."""

from pathlib import Path

import pytest
from pycocotools import mask as coco
from pycocotools.coco import COCO

from tests.end_to_end.gateway import Gateway
from tests.end_to_end.labelling_cases import CASES, HEIGHT, PICTURE, WIDTH, Case
from tests.end_to_end.web_page.visitor import Arrive, Frame, Visitor


def draw(visitor: Visitor, frame: Frame, case: Case) -> None:
    """The case's clicks and box, each in the middle of its pixel."""
    if case.box:
        x1, y1, x2, y2 = case.box
        visitor.page.mouse.move(*frame.at(x1 + 0.5, y1 + 0.5))
        visitor.page.mouse.down()
        visitor.page.mouse.move(*frame.at(x2 + 0.5, y2 + 0.5), steps=3)
        visitor.page.mouse.up()
    for x, y, label in case.points:
        visitor.page.mouse.click(*frame.at(x + 0.5, y + 0.5), button="left" if label else "right")
        visitor.answered()


@pytest.mark.parametrize("name", CASES)
def test_the_page_gives_the_mask_and_name_that_rest_gives(
    arrive: Arrive, gateway: Gateway, tmp_path: Path, name: str
) -> None:
    case = CASES[name]
    visitor = arrive()
    visitor.open(PICTURE.name, PICTURE.read_bytes())
    visitor.press("p")
    draw(visitor, visitor.frame(WIDTH, HEIGHT), case)
    visitor.answered()
    sent = visitor.last_prompt()
    said = [(point["x"], point["y"], point["label"]) for point in sent["points"]]
    assert said == [pytest.approx(point, abs=1) for point in case.points]
    assert (sent.get("box") or ()) == pytest.approx(case.box or (), abs=1)
    with gateway.client() as http:
        bodies = visitor.segment_bodies()
        (found,) = http.post("/v1/segment", json=bodies[-1]).json()["results"]
    visitor.download("coco").save_as(tmp_path / "coco.json")
    dataset = COCO(str(tmp_path / "coco.json"))
    (annotation,) = dataset.loadAnns(dataset.getAnnIds())
    expected = coco.decode({"size": [HEIGHT, WIDTH], "counts": found["mask"]["counts"].encode()})
    assert (dataset.annToMask(annotation) == expected).all()
    assert visitor.objects() == [found["classes"][0]["name"]]
    assert visitor.names() == [entry["name"] for entry in found["classes"]]
