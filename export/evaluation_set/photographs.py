"""Rasterise the hand-drawn outlines (outlines.json): run after an outline was corrected."""

import json
from typing import Any

import cv2

from export.evaluation_set.coco import FOLDER, Picture, Thing, fill, write


def _thing(row: dict[str, Any], size: tuple[int, int]) -> Thing:
    """`polygons` drawn around the object, less `cut`: what stands in front of it or shows through it."""
    polygons, cut = row["polygons"], row.get("cut", [])
    mask = fill(polygons, size) & ~fill(cut, size)
    alone = None if cut else polygons
    return Thing(row["category"], mask, polygons=alone, part=row.get("part", False))


def _picture(file_name: str, entry: dict[str, Any]) -> Picture:
    image = cv2.imread(str(FOLDER / "images" / file_name))
    if image is None:
        raise FileNotFoundError(file_name)
    size = (image.shape[0], image.shape[1])
    things = [_thing(row, size) for row in entry["objects"]]
    return Picture(file_name, size, entry["author"], entry["source"], entry["licence"], things)


def main() -> None:
    """Replace the photographs' entries in annotations.json."""
    outlines = json.loads((FOLDER / "outlines.json").read_text(encoding="utf-8"))
    write([_picture(name, entry) for name, entry in outlines.items()], kind="photograph")


if __name__ == "__main__":
    main()
