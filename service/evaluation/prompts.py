"""Simulated users: where they click first, and where they click to correct a mask."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from service.client.masks import BoolArray
from service.client.options import Prompt
from service.evaluation.dataset import InvalidDataSet, Target
from service.evaluation.metrics import deepest_pixel

Click = tuple[float, float, int]
"""(x, y, label), label 1 on the object and 0 beside it."""


@dataclass(frozen=True, slots=True)
class PromptRule:
    """How an object is pointed at: by its box, a click at its box's centre, or `clicks` clicks inside it.

    With more than one click, each next one corrects the answer before it.
    """

    text: str
    kind: Literal["box", "centre", "inside"]
    clicks: int = 1

    def first(self, target: Target) -> Prompt:
        """The prompt that no answer goes before."""
        if self.kind == "box":
            return Prompt(box=target.box)
        if self.kind == "centre":
            x1, y1, x2, y2 = target.box
            return Prompt(points=[((x1 + x2) / 2, (y1 + y2) / 2, 1)])
        x, y = target.point if target.point is not None else deepest_pixel(target.mask())[0]
        return Prompt(points=[(x, y, 1)])


def parse_rule(text: str) -> PromptRule:
    """A value of --prompt: paper-point, paper-box, point, box or points:N."""
    if text in {"box", "paper-box"}:
        return PromptRule(text, "box")
    if text == "paper-point":
        return PromptRule(text, "centre")
    kind, _, count = text.partition(":")
    if text == "point" or (kind == "points" and count.isdigit() and int(count) > 0):
        return PromptRule(text, "inside", clicks=int(count or 1))
    raise InvalidDataSet(f"--prompt is paper-point, paper-box, point, box or points:N, not {text!r}")


def corrective_click(found: BoolArray, truth: BoolArray) -> Click | None:
    """A click at the centre of the largest error region: the deepest pixel of all missed or all excessive area.

    None when the mask has no error.
    """
    missed, missed_depth = deepest_pixel(truth & ~found)
    excess, excess_depth = deepest_pixel(found & ~truth)
    if max(missed_depth, excess_depth) == 0:
        return None
    return (*missed, 1) if missed_depth >= excess_depth else (*excess, 0)


def empty_mask(target: Target) -> BoolArray:
    """What a failed or empty answer is worth, [H, W]."""
    return np.zeros(target.size, np.bool_)
