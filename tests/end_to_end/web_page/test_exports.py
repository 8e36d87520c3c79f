"""Exported files hold exactly the masks, as other tools read them."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO

from tests.end_to_end.web_page.coffee import SPOON, click_cup
from tests.end_to_end.web_page.visitor import Arrive


def test_downloads_are_what_other_tools_read(arrive: Arrive, tmp_path: Path) -> None:
    visitor = arrive()
    frame = click_cup(visitor)
    visitor.press("n")
    visitor.page.mouse.click(*frame.at(*SPOON))
    visitor.answered()
    files = {form: tmp_path / form for form in ("coco", "polygons", "mask", "numbered")}
    for form, path in files.items():
        visitor.download(form).save_as(path)
    dataset = COCO(str(files["coco"]))
    annotations = dataset.loadAnns(dataset.getAnnIds())
    masks = [dataset.annToMask(annotation).astype(bool) for annotation in annotations]
    assert [mask.sum() for mask in masks] == [annotation["area"] for annotation in annotations]
    for mask, annotation in zip(masks, annotations, strict=True):
        rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert coco.toBbox(rle).tolist() == annotation["bbox"]
    names = [dataset.cats[annotation["category_id"]]["name"] for annotation in annotations]
    assert names == visitor.objects()
    with Image.open(files["mask"]) as selected:
        assert np.array_equal(np.asarray(selected.convert("L")) > 0, masks[1])
    with Image.open(files["numbered"]) as numbered:
        numbers = np.asarray(numbered)
        assert numbered.mode == "P"
    assert np.array_equal(numbers == 2, masks[1])
    assert np.array_equal(numbers == 1, masks[0] & ~masks[1])
    features = json.loads(files["polygons"].read_text())["features"]
    assert [feature["properties"]["name"] for feature in features] == names
    assert [area_of(feature["geometry"]["coordinates"]) for feature in features] == [mask.sum() for mask in masks]


def area_of(polygons: list[list[list[tuple[int, int]]]]) -> int:
    """Pixels within polygons with holes, by the shoelace formula."""
    total = 0.0
    for rings in polygons:
        for index, ring in enumerate(rings):
            points = np.array(ring)
            assert np.array_equal(points[0], points[-1])
            x, y = points.T
            area = abs(float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]))) / 2
            total += -area if index else area
    return int(total)


def test_masks_are_decoded_and_outlined_exactly(arrive: Arrive) -> None:
    """Ragged masks, single pixels and holes in holes: runs, outlines and polygons against pycocotools."""
    random = np.random.default_rng(7)
    masks = [random.random((23, 31)) < share for share in (0.02, 0.5, 0.97)]
    rings = np.zeros((40, 40), dtype=bool)
    for inset in range(0, 20, 3):
        rings[inset : 40 - inset, inset : 40 - inset] ^= True
    visitor = arrive()
    for mask in [*masks, rings, np.ones((3, 2), dtype=bool)]:
        rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        sent = {"size": rle["size"], "counts": rle["counts"].decode()}
        pixels, polygons = visitor.page.evaluate(
            """async rle => {
                const {Mask} = await import("/js/rle.js");
                const {traceRings, groupPolygons} = await import("/js/outline.js");
                const mask = new Mask(rle);
                const pixels = Array.from({length: mask.height}, (_, y) =>
                    Array.from({length: mask.width}, (_, x) => mask.has(x, y)));
                return [pixels, groupPolygons(traceRings(mask))];
            }""",
            sent,
        )
        assert np.array_equal(np.array(pixels), mask)
        assert area_of(polygons) == mask.sum()
