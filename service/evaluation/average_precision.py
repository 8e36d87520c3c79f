"""Mask average precision by COCO's rules, and by LVIS' where a file says what was looked for, picture by picture."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.client.masks import BoolArray
from service.evaluation.metrics import mean

THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0.0, 1.0, 101)
_MOST = 100  # detections of one class on one picture
_MOST_OF_ALL = 300  # detections on one picture, as LVIS counts
_SIZES = {"": (0.0, 1e10), "_small": (0.0, 32.0**2), "_medium": (32.0**2, 96.0**2), "_large": (96.0**2, 1e10)}


class Truth(NamedTuple):
    """An annotated object; matches with a crowd count neither way."""

    category: int
    area: float
    crowd: bool
    mask: BoolArray


class Detection(NamedTuple):
    """A detected object with its mask [H, W]."""

    category: int
    score: float
    mask: BoolArray


@dataclass(frozen=True, slots=True)
class Verified:
    """What LVIS' annotators looked for on one picture: detections of other classes count neither way.

    On classes of `partial` not every object is annotated, so that a detection without a partner is no false alarm.
    """

    categories: frozenset[int]
    partial: frozenset[int]


@dataclass(slots=True)
class _Matches:
    """One class and size range: for each detection its score, and by threshold whether it matched or does not count."""

    scores: list[float] = field(default_factory=list)
    matched: list[NDArray[np.bool_]] = field(default_factory=list)
    ignored: list[NDArray[np.bool_]] = field(default_factory=list)
    truths: int = 0


class AveragePrecision:
    """Takes pictures one at a time, in the order of their ids, so that no masks are kept."""

    def __init__(self) -> None:
        self._matches: dict[tuple[int, str], _Matches] = defaultdict(_Matches)

    def add(
        self, truths: Sequence[Truth], detections: Sequence[Detection], *, verified: Verified | None = None
    ) -> None:
        """One picture's annotated and detected objects, of all classes; COCO's pictures are verified for each class."""
        if verified is not None:
            best = sorted(detections, key=lambda d: -d.score)[:_MOST_OF_ALL]
            detections = [detection for detection in best if detection.category in verified.categories]
        for category in {truth.category for truth in truths} | {detection.category for detection in detections}:
            true = [truth for truth in truths if truth.category == category]
            found = sorted((d for d in detections if d.category == category), key=lambda d: -d.score)
            found = found if verified is not None else found[:_MOST]
            overlaps = _overlaps(found, true)
            partial = verified is not None and category in verified.partial
            for suffix, limits in _SIZES.items():
                matches = self._matches[category, suffix]
                _match(matches, found, true, overlaps=overlaps, limits=limits, partial=partial)

    def figures(self, categories: Sequence[int] | None = None) -> dict[str, float | None]:
        """AP, AP50, AP75 and AP by size over all classes (or those given) that are annotated; None without any."""
        tables = {
            suffix: [
                _precision(matches)
                for (category, size), matches in self._matches.items()
                if size == suffix and matches.truths and (categories is None or category in categories)
            ]
            for suffix in _SIZES
        }
        figures = {f"AP{suffix}": mean([float(row.mean()) for row in rows]) for suffix, rows in tables.items()}
        return figures | {f"AP{name}": mean([float(row[at]) for row in tables[""]]) for name, at in ((50, 0), (75, 5))}


def _overlaps(found: Sequence[Detection], true: Sequence[Truth]) -> NDArray[np.float64]:
    """IoU [D, G]; with a crowd the share of the detection that lies in it."""
    overlaps = np.zeros((len(found), len(true)))
    areas = [int(np.count_nonzero(truth.mask)) for truth in true]
    for row, detection in enumerate(found):
        area = int(np.count_nonzero(detection.mask))
        for column, truth in enumerate(true):
            shared = int(np.count_nonzero(detection.mask & truth.mask))
            whole = area if truth.crowd else area + areas[column] - shared
            overlaps[row, column] = shared / whole if whole else 0.0
    return overlaps


def _match(
    matches: _Matches,
    found: Sequence[Detection],
    true: Sequence[Truth],
    *,
    overlaps: NDArray[np.float64],
    limits: tuple[float, float],
    partial: bool,
) -> None:
    """Best detections choose first; objects outside the size range, and detections outside left alone, do not count.

    With `partial` no detection counts that is left alone.
    """
    low, high = limits
    skipped = np.array([truth.crowd or not low <= truth.area <= high for truth in true], np.bool_)
    areas = np.array([np.count_nonzero(detection.mask) for detection in found])
    outside = (areas < low) | (areas > high) | partial
    matched = np.zeros((len(found), len(THRESHOLDS)), np.bool_)
    ignored = np.zeros_like(matched)
    for column, threshold in enumerate(THRESHOLDS):
        free = np.ones(len(true), np.bool_)
        for row in range(len(found)):
            partner = _partner(overlaps[row], free & ~skipped, threshold) if len(true) else None
            if partner is None and len(true):
                crowds = np.array([truth.crowd for truth in true])
                partner = _partner(overlaps[row], (free | crowds) & skipped, threshold)
            matched[row, column] = partner is not None
            ignored[row, column] = skipped[partner] if partner is not None else outside[row]
            if partner is not None:
                free[partner] = False
    matches.scores += [detection.score for detection in found]
    matches.matched += list(matched)
    matches.ignored += list(ignored)
    matches.truths += int(np.count_nonzero(~skipped))


def _partner(overlaps: NDArray[np.float64], candidates: BoolArray, threshold: float) -> int | None:
    """The candidate with the largest overlap of at least the threshold; of equal ones the last."""
    allowed = np.flatnonzero(candidates & (overlaps >= threshold))
    if allowed.size == 0:
        return None
    best = overlaps[allowed]
    return int(allowed[np.flatnonzero(best == best.max())[-1]])


def _precision(matches: _Matches) -> NDArray[np.float64]:
    """Mean precision at 101 recalls, for each threshold [10]."""
    if not matches.scores:
        return np.zeros(len(THRESHOLDS))
    order = np.argsort(-np.asarray(matches.scores), kind="stable")
    matched, ignored = np.stack(matches.matched)[order], np.stack(matches.ignored)[order]
    means = np.zeros(len(THRESHOLDS))
    for column in range(len(THRESHOLDS)):
        hits = matched[~ignored[:, column], column]
        true = np.cumsum(hits)
        precision = true / np.arange(1, len(hits) + 1)
        envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        reached = np.searchsorted(true / matches.truths, _RECALLS, side="left")
        means[column] = envelope[reached].mean()
    return means
