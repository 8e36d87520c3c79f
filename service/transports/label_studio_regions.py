"""Label Studio's regions: prompts read from them, and masks written as them, all in percent of the image."""

import math
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import cv2

from service.core.brush_rle import encode_brush_rle
from service.core.encodings import encode_polygons
from service.core.errors import InvalidPrompt
from service.core.masks import mask_box
from service.core.types import BoolArray, Box, ClassScore, Point, Prompt, Size
from service.transports.label_studio_config import Control, LabelConfig
from service.transports.label_studio_schemas import PromptRegion, PromptValue

Shapes: TypeAlias = Mapping[str, Sequence[dict[str, Any]]]
"""By shape of control, the geometry of each region that shows one mask."""
_SIMPLIFY = 0.001  # of the longer side: corners that an annotator would not set
_SMALL_RING = 0.01  # of the largest outline: specks that an annotator would have to delete


def read_prompt(regions: Sequence[PromptRegion], size: Size) -> Prompt:
    """One prompt from all that was drawn for one object; the last rectangle counts."""
    points, box = [], None
    for region in regions:
        if region.type.startswith("keypoint"):
            x, y = region.value.x * size.width / 100, region.value.y * size.height / 100
            points.append(Point(x, y, region.is_positive))
        elif region.type.startswith("rectangle"):
            box = _upright_box(region.value, size)
        elif region.type != "labels":  # what `<Labels>` adds to a region drawn beside it
            raise InvalidPrompt(f"prompts are key points and rectangles, not {region.type!r}")
    return Prompt(points=tuple(points), box=box)


def chosen_label(regions: Sequence[PromptRegion], labels: Collection[str]) -> str | None:
    """The label that the user drew the prompt with, when it is one of the config's own."""
    names = [name for region in regions for name in region.value.chosen]
    return next((name for name in reversed(names) if name in labels), None)


def best_label(classes: Sequence[ClassScore], words: Mapping[str, str]) -> tuple[str, float]:
    """The likeliest label, with all its words together, and its probability among the labels; empty when unnamed."""
    totals: dict[str, float] = {}
    for name, score in classes:
        if name in words:
            totals[words[name]] = totals.get(words[name], 0.0) + score
    label, score = max(totals.items(), key=lambda item: item[1], default=("", 0.0))
    return label, score / max(sum(totals.values()), 1e-12)


def shape_renderer(config: LabelConfig) -> Callable[[BoolArray], Shapes]:
    """The function that renders a mask for every shape of control in the config."""
    return partial(_render_shapes, wanted={control.shape for control in config.controls})


def write_regions(
    config: LabelConfig, shapes: Shapes, *, label: str, score: float, size: Size, rotation: int = 0
) -> list[dict[str, Any]]:
    """The regions of one object: one for each control that offers the label (a polygon control may need several).

    A control whose labels stand beside it makes two entries of one id. `rotation` is how the user has turned the view;
    Label Studio states it, and its numbers stay those of the picture as it is.
    """
    regions = []
    for control in config.controls:
        for shape in shapes[control.shape] if label in control.labels else ():
            region = {
                "id": uuid.uuid4().hex[:10],
                "to_name": config.image,
                "original_width": size.width,
                "original_height": size.height,
                "image_rotation": rotation,
                "score": round(score, 4),
                "readonly": False,
            }
            if control.labels_from:
                regions.append({**region, "from_name": control.name, "type": control.kind, "value": shape})
            regions.append({**region, **_labelled(control, shape, label)})
    return regions


def _labelled(control: Control, shape: dict[str, Any], label: str) -> dict[str, Any]:
    """The entry that says the label: of the control itself, or of the `<Labels>` beside it."""
    kind = "labels" if control.labels_from else control.kind
    return {"from_name": control.labels_from or control.name, "type": kind, "value": {**shape, kind: [label]}}


def _upright_box(value: PromptValue, size: Size) -> Box:
    """The upright box around a rectangle that is turned by `rotation` degrees about its top-left corner."""
    x, y = value.x * size.width / 100, value.y * size.height / 100
    width, height = value.width * size.width / 100, value.height * size.height / 100
    cos, sin = math.cos(math.radians(value.rotation)), math.sin(math.radians(value.rotation))
    corners = [(a * cos - b * sin, a * sin + b * cos) for a in (0, width) for b in (0, height)]
    across, down = zip(*corners, strict=True)
    return Box(x + min(across), y + min(down), x + max(across), y + max(down))


def _render_shapes(mask: BoolArray, *, wanted: Collection[str]) -> Shapes:
    if not mask.any():
        return dict.fromkeys(wanted, ())
    shapes: dict[str, Sequence[dict[str, Any]]] = {}
    if "brush" in wanted:
        shapes["brush"] = [{"format": "rle", "rle": encode_brush_rle(mask).tolist()}]
    if "polygon" in wanted:
        shapes["polygon"] = _polygons(mask)
    if "rectangle" in wanted:
        shapes["rectangle"] = [_rectangle(mask)]
    return shapes


def _polygons(mask: BoolArray) -> list[dict[str, Any]]:
    """Outlines in percent; Label Studio's polygons have no holes."""
    height, width = mask.shape
    rings = [ring for ring in encode_polygons(mask, simplify=max(1.0, _SIMPLIFY * max(mask.shape))) if not ring.hole]
    areas = [cv2.contourArea(ring.points) for ring in rings]
    return [
        {"points": ((ring.points + 0.5) * [100 / width, 100 / height]).round(3).tolist(), "closed": True}
        for ring, area in zip(rings, areas, strict=True)
        if len(ring.points) >= 3 and area >= _SMALL_RING * max(areas)
    ]


def _rectangle(mask: BoolArray) -> dict[str, Any]:
    height, width = mask.shape
    box = mask_box(mask)
    return {
        "x": 100 * box.x1 / width,
        "y": 100 * box.y1 / height,
        "width": 100 * (box.x2 - box.x1) / width,
        "height": 100 * (box.y2 - box.y1) / height,
        "rotation": 0,
    }
