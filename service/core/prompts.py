"""Prompts in the original frame, checked, and as the prompt decoder's tensors in the model frame."""

import math
from collections.abc import Sequence

import numpy as np

from service.core.errors import InvalidPrompt
from service.core.types import Array, Box, Letterbox, Prompt, Size

FOREGROUND, BACKGROUND, TOP_LEFT, BOTTOM_RIGHT, UNUSED = 1, 0, 2, 3, -1
_SLOTS = (2, 4, 8, 16, 32)  # fixed numbers of point slots, so that a model server can batch calls (TRITON.md)


def check_prompt(prompt: Prompt, *, image: Size, max_points: int) -> Prompt:
    """The prompt with its box cut to the image; raises InvalidPrompt with the field that is wrong."""
    if not prompt.points and prompt.box is None:
        raise InvalidPrompt("a prompt needs at least one point or a box")
    if len(prompt.points) > max_points:
        raise InvalidPrompt(f"{len(prompt.points)} points were given; the limit is {max_points}", pointer="/points")
    for index, point in enumerate(prompt.points):
        if not (math.isfinite(point.x) and math.isfinite(point.y)):
            raise InvalidPrompt("coordinates must be finite numbers", pointer=f"/points/{index}")
        if not (0 <= point.x <= image.width and 0 <= point.y <= image.height):
            raise InvalidPrompt(
                f"point ({point.x:g}, {point.y:g}) lies outside the image of {image.width} x {image.height} pixels",
                pointer=f"/points/{index}",
            )
    if prompt.box is None:
        return prompt
    return Prompt(points=prompt.points, box=_check_box(prompt.box, image), mask_input=prompt.mask_input)


def _check_box(box: Box, image: Size) -> Box:
    if not all(math.isfinite(side) for side in box):
        raise InvalidPrompt("coordinates must be finite numbers", pointer="/box")
    if box.x2 <= box.x1 or box.y2 <= box.y1:
        raise InvalidPrompt("a box is [x1, y1, x2, y2] with x1 < x2 and y1 < y2", pointer="/box")
    cut = Box(max(box.x1, 0.0), max(box.y1, 0.0), min(box.x2, image.width), min(box.y2, image.height))
    if cut.x2 <= cut.x1 or cut.y2 <= cut.y1:
        raise InvalidPrompt(f"the box lies outside the image of {image.width} x {image.height} pixels", pointer="/box")
    return cut


def prompt_inputs(prompts: Sequence[Prompt], letterbox: Letterbox, *, low_res_size: int) -> dict[str, Array]:
    """The prompt decoder's inputs for N prompts of one image, batch axis 1 (model contract, `prompt_decoder`)."""
    count = len(prompts)
    slots = _bucket(max(len(prompt.points) + 2 * (prompt.box is not None) for prompt in prompts))
    coords = np.zeros((1, count, slots, 2), dtype=np.float32)
    labels = np.full((1, count, slots), UNUSED, dtype=np.int32)
    side = low_res_size if any(prompt.mask_input is not None for prompt in prompts) else 1
    masks = np.zeros((1, count, side, side), dtype=np.float32)
    has_mask = np.zeros((1, count), dtype=np.float32)
    for row, prompt in enumerate(prompts):
        tokens = [(point.x, point.y, FOREGROUND if point.foreground else BACKGROUND) for point in prompt.points]
        if prompt.box is not None:
            tokens.append((prompt.box.x1, prompt.box.y1, TOP_LEFT))
            tokens.append((prompt.box.x2, prompt.box.y2, BOTTOM_RIGHT))
        for slot, (x, y, label) in enumerate(tokens):
            coords[0, row, slot] = x, y
            labels[0, row, slot] = label
        if prompt.mask_input is not None:
            masks[0, row] = prompt.mask_input
            has_mask[0, row] = 1
    coords *= np.array(letterbox.scale, dtype=np.float32)
    return {"point_coords": coords, "point_labels": labels, "mask_input": masks, "has_mask_input": has_mask}


def _bucket(tokens: int) -> int:
    return next((slots for slots in _SLOTS if tokens <= slots), -(-tokens // 32) * 32 + 2)
