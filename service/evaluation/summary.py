"""From records to figures: means by group and by click, the worst classes, average precision, latencies."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from service.client.masks import Rle, decode_rle
from service.evaluation.average_precision import AveragePrecision, Detection, Truth
from service.evaluation.dataset import DataSet, Picture, Target
from service.evaluation.metrics import mean, percentiles_ms
from service.evaluation.records import ObjectRecord, PictureRecord, Step

Figures = dict[str, Any]
_SMALL, _MEDIUM = 32**2, 96**2  # pixels; COCO's sizes
_WORST = 10  # classes whose confusions are told


@dataclass(frozen=True, slots=True)
class Case:
    """One measured object."""

    picture: Picture
    target: Target
    record: ObjectRecord

    def step(self, click: int) -> Step:
        """The answer after `click` clicks, or the last one where no error was left to correct."""
        return self.record.steps[min(click, len(self.record.steps)) - 1]

    def right(self, step: Step, *, among: int) -> bool:
        """Whether one of the best `among` names is the class."""
        return bool(self.target.category.names & set(step.names[:among]))


def cases_of(dataset: DataSet, records: Iterable[PictureRecord]) -> list[Case]:
    """The objects that were answered."""
    targets = dataset.targets()
    return [Case(*targets[item.id], item) for record in records for item in record.objects if item.error is None]


def group_figures(cases: Sequence[Case], *, apart: Collection[str]) -> dict[str, Figures]:
    """Means after the last click, of all objects and of each group."""
    return {name: _means(members) for name, members in _groups(cases, apart=apart).items()}


def click_figures(cases: Sequence[Case], *, clicks: int, apart: Collection[str]) -> list[Figures]:
    """Means after 1 ... `clicks` clicks; `error` is 1 - IoU, also of each group."""
    rows = []
    groups = _groups(cases, apart=apart)
    for click in range(1, clicks + 1):
        quality = _quality(cases, [case.step(click) for case in cases])
        errors = {name: 1 - sum(case.step(click).iou for case in of) / len(of) for name, of in groups.items()}
        rows.append({"click": click, "error": errors.get("all"), "errors": errors, **quality})
    return rows


def _groups(cases: Sequence[Case], *, apart: Collection[str]) -> dict[str, list[Case]]:
    """All objects and each group; the classes `apart` are groups of their own and in no other but `all`."""
    rest = [case for case in cases if case.target.category.name not in apart]
    groups: dict[str, list[Case]] = {"all": list(cases)}
    if len(rest) < len(cases):
        groups["all but " + ", ".join(apart)] = rest
    groups |= {name: [case for case in cases if case.target.category.name == name] for name in apart}
    for group_of in (_kind, _part, _split, _size):
        parts: dict[str, list[Case]] = defaultdict(list)
        for case in rest:
            name = group_of(case)
            if name is not None:
                parts[name].append(case)
        if len(parts) > 1 or group_of is _size:
            groups |= {name: parts[name] for name in sorted(parts)}
    return {name: members for name, members in groups.items() if members}


def confusions(cases: Sequence[Case]) -> list[Figures]:
    """The classes that are named wrongly most often, and what they are taken for."""
    wrong: dict[str, Counter[str]] = defaultdict(Counter)
    totals: Counter[str] = Counter()
    for case in cases:
        totals[case.target.category.name] += 1
        if not case.right(case.record.last, among=1):
            wrong[case.target.category.name][case.record.last.names[0] if case.record.last.names else "nothing"] += 1
    worst = sorted(wrong, key=lambda name: (-wrong[name].total(), name))[:_WORST]
    return [
        {
            "class": name,
            "objects": totals[name],
            "wrong": wrong[name].total(),
            "taken_for": dict(wrong[name].most_common(3)),
        }
        for name in worst
    ]


def latency_figures(records: Iterable[PictureRecord]) -> dict[str, dict[str, float]]:
    """Milliseconds from upload to first answer on new pictures, and of each answer on pictures already embedded."""
    first, warm = [], []
    for record in records:
        seconds = [step.seconds for item in record.objects for step in item.steps]
        if record.first_seconds is not None:
            first.append(record.first_seconds)
            seconds = seconds[1:]
        warm += seconds
    return {"first": percentiles_ms(first), "warm": percentiles_ms(warm)}


def precision_figures(dataset: DataSet, records: Iterable[PictureRecord]) -> dict[str, dict[str, float | None]]:
    """Mask AP of the given detections over all that is annotated on the measured pictures, whole and by split."""
    pictures = {picture.id: picture for picture in dataset.pictures}
    precision = AveragePrecision()
    for record in sorted(records, key=lambda record: record.id):
        truths = [Truth(t.category.id, t.area, t.crowd, t.mask()) for t in pictures[record.id].annotated]
        found = [Detection(d.category, d.score, decode_rle(Rle(d.size, d.counts))) for d in record.detections]
        precision.add(truths, found, verified=pictures[record.id].verified)
    figures = {"all": precision.figures()}
    for split in sorted({category.split for category in dataset.categories.values() if category.split}):
        members = [category.id for category in dataset.categories.values() if category.split == split]
        figures[split] = precision.figures(members)
    return figures


def _means(cases: Sequence[Case]) -> Figures:
    """Figures after the last click; `iou_by_picture` gives each picture the same weight."""
    pictures: dict[int, list[float]] = defaultdict(list)
    for case in cases:
        pictures[case.picture.id].append(case.record.last.iou)
    by_picture = mean([sum(values) / len(values) for values in pictures.values()])
    quality = _quality(cases, [case.record.last for case in cases])
    return {"objects": len(cases), "pictures": len(pictures), "iou_by_picture": by_picture, **quality}


def _quality(cases: Sequence[Case], steps: Sequence[Step]) -> Figures:
    pairs = list(zip(cases, steps, strict=True))
    return {
        "iou": mean([step.iou for step in steps]),
        "boundary_iou": mean([step.boundary_iou for step in steps]),
        "top1": mean([float(case.right(step, among=1)) for case, step in pairs]),
        "top5": mean([float(case.right(step, among=5)) for case, step in pairs]),
    }


def _kind(case: Case) -> str | None:
    return case.picture.kind


def _part(case: Case) -> str | None:
    return "parts" if case.target.part else "whole objects"


def _split(case: Case) -> str | None:
    return case.target.category.split


def _size(case: Case) -> str | None:
    area = case.target.area
    return "small" if area < _SMALL else "medium" if area < _MEDIUM else "large"
