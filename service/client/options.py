"""What may be asked of the service, and the JSON that asks it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict

PointLike: TypeAlias = tuple[float, float] | tuple[float, float, int]
"""(x, y), or (x, y, label) with label 1 for foreground and 0 for background."""
BoxLike: TypeAlias = Sequence[float]
"""x1, y1, x2, y2."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What points at one object: points, a box, or both; `mask_ref` names an earlier object to refine."""

    points: Sequence[PointLike] = ()
    box: BoxLike | None = None
    mask_ref: str | None = None
    id: str | None = None


class NameOptions(TypedDict, total=False):
    """Which names: own words or a stored vocabulary (neither is the service's default); `classify=False` is none."""

    names: Sequence[str]
    vocabulary: str
    top_k: int
    min_score: float
    classify: bool


class SegmentOptions(NameOptions, total=False):
    """What to segment: `points` together are one object, each of `boxes` and of `prompts` is one of its own.

    `masks=False` leaves the masks out of the answer.
    """

    points: Sequence[PointLike]
    boxes: Sequence[BoxLike]
    prompts: Sequence[Prompt]
    masks: bool


class EverythingOptions(NameOptions, total=False):
    """How to look for everything.

    `grid` is the number of clicks along the longer side, `min_area` a share of the image, `overlap` the IoU above which
    two masks count as one object.
    """

    grid: int
    min_stability: float
    min_area: float
    overlap: float


def segment_body(digest: str, options: SegmentOptions) -> dict[str, Any]:
    """The body of POST /v1/segment."""
    prompts = [Prompt(points=options["points"])] if options.get("points") else []
    prompts += [Prompt(box=box) for box in options.get("boxes", ())]
    prompts += options.get("prompts", ())
    return {
        "image": digest,
        "prompts": [_prompt(prompt) for prompt in prompts],
        "classify": _classify(options),
        "output": {"mask": "rle" if options.get("masks", True) else "none"},
    }


def everything_body(digest: str, options: EverythingOptions) -> dict[str, Any]:
    """The body of POST /v1/segment/everything."""
    rules: dict[str, Any] = {
        name: options[name] for name in ("grid", "min_stability", "min_area", "overlap") if name in options
    }
    return {"image": digest, "classify": _classify(options), **rules}


def _prompt(prompt: Prompt) -> dict[str, Any]:
    points = [{"x": float(x), "y": float(y), "label": int(label[0]) if label else 1} for x, y, *label in prompt.points]
    fields: dict[str, Any] = {"points": points, "mask_ref": prompt.mask_ref, "id": prompt.id}
    return fields | {"box": [float(side) for side in prompt.box] if prompt.box is not None else None}


def _classify(options: NameOptions) -> Mapping[str, Any] | None:
    if not options.get("classify", True):
        return None
    fields: dict[str, Any] = {name: options[name] for name in ("vocabulary", "top_k", "min_score") if name in options}
    return fields | ({"names": list(options["names"])} if options.get("names") is not None else {})
