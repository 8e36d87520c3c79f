"""One picture of the best and the worst masks, and of sure mistakes, for a look at what the figures mean."""

from collections.abc import Sequence
from pathlib import Path

import cv2

from service.evaluation.drawing import GREEN, MAGENTA, UInt8Array, object_tile, sheet, write_picture
from service.evaluation.summary import Case

_TILES = 6  # in a row


def write_contact_sheet(path: Path, cases: Sequence[Case]) -> None:
    """Annotated outlines are green, found ones magenta; at most two tiles of one picture stand in a row."""
    ordered = sorted(cases, key=lambda case: -case.record.last.iou)
    misnamed = [case for case in ordered if not case.right(case.record.last, among=1)]
    rows = [
        ("best masks", _spread(ordered)),
        ("worst masks", _spread(ordered[::-1])),
        ("good masks, wrong names", _spread(misnamed)),
    ]
    write_picture(str(path), sheet([(title, [_tile(case) for case in chosen]) for title, chosen in rows if chosen]))


def _spread(cases: Sequence[Case]) -> list[Case]:
    chosen: list[Case] = []
    for case in cases:
        if sum(other.picture.id == case.picture.id for other in chosen) < 2 and len(chosen) < _TILES:
            chosen.append(case)
    return chosen


def _tile(case: Case) -> UInt8Array:
    image = cv2.imread(str(case.picture.path), cv2.IMREAD_COLOR)
    if image is None:
        raise OSError(f"{case.picture.path} cannot be read")
    found = case.record.mask()
    outlines = [(case.target.mask(), GREEN)] + ([(found, MAGENTA)] if found is not None else [])
    name = case.record.last.names[0] if case.record.last.names else "no name"
    caption = [f"{case.target.category.name}: {name}", f"IoU {case.record.last.iou:.2f}  {case.picture.path.name}"]
    return object_tile(image.astype("uint8"), outlines, points=case.record.points, box=case.record.box, caption=caption)
