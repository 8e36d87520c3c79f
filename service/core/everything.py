"""Segment everything: a grid of clicks, only stable masks, one of each object."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from service.core.masks import stability
from service.core.requests import PromptRequest, Segment, SegmentReply, SegmentRequest
from service.core.segmenter import Job, Segmenter
from service.core.types import MaskPrediction, Point, Prompt, Size


@dataclass(frozen=True, slots=True)
class EverythingRules:
    """Which masks of a grid of clicks are objects (after the SAM paper's automatic mask generation, appendix B).

    `grid` clicks along the longer side; masks below `min_stability` or `min_area` (share of the image) are left out,
    and of masks whose IoU is over `overlap` the most stable one stays.
    """

    grid: int = 16
    min_stability: float = 0.5
    min_area: float = 0.0005
    overlap: float = 0.7


def grid_points(size: Size, *, grid: int) -> list[Point]:
    """Clicks at the centres of square cells, `grid` of them along the longer side."""
    step = max(size) / grid
    columns, rows = max(1, round(size.width / step)), max(1, round(size.height / step))
    return [
        Point((column + 0.5) * size.width / columns, (row + 0.5) * size.height / rows)
        for row in range(rows)
        for column in range(columns)
    ]


def choose_masks(predictions: Sequence[MaskPrediction], *, rules: EverythingRules, area: float) -> list[int]:
    """Indices of the masks that stay, most stable first; `area` is the image's in low-res cells."""
    scored = [(stability(prediction.logits), index) for index, prediction in enumerate(predictions)]
    masks = np.stack([prediction.logits.ravel() > 0 for prediction in predictions]).astype(np.float32)
    areas = masks.sum(axis=1)
    order = [i for score, i in sorted(scored, key=lambda pair: -pair[0]) if score >= rules.min_stability]
    chosen: list[int] = []
    for index in order:
        if areas[index] < max(1.0, rules.min_area * area):
            continue
        common = masks[chosen] @ masks[index]
        unions = areas[chosen] + areas[index] - common
        if not np.any(common > rules.overlap * unions):
            chosen.append(index)
    return chosen


async def segment_everything(
    segmenter: Segmenter, request: SegmentRequest, *, rules: EverythingRules, deadline: float
) -> AsyncIterator[SegmentReply | Segment]:
    """First a reply without segments (which image, from where), then each object's segment as it is ready."""
    opened = await segmenter.open(request, deadline=deadline)
    yield opened
    size = opened.embedding.letterbox.original
    points = grid_points(size, grid=rules.grid)
    grid = [PromptRequest(id=str(index), prompt=Prompt(points=(point,))) for index, point in enumerate(points)]
    jobs: list[Job] = []
    step = segmenter.limits.prompts
    for start in range(0, len(grid), step):
        part = replace(request, prompts=grid[start : start + step])
        jobs.extend((await segmenter.predict(part, opened, deadline=deadline)).values())
    predictions = [job.prediction for job in jobs if job.prediction]
    side = segmenter.spec.low_res_size
    resized = opened.embedding.letterbox.resized
    area = resized.height * resized.width * (side / segmenter.spec.input_size) ** 2
    chosen = choose_masks(predictions, rules=rules, area=area)
    for index in chosen:
        reply = await segmenter.describe(
            replace(request, prompts=grid), opened, {index: jobs[index]}, deadline=deadline
        )
        yield reply[index]
