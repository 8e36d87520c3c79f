"""The figures of a run as JSON, as markdown and as charts."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from service.evaluation import plots
from service.evaluation.contact_sheet import write_contact_sheet
from service.evaluation.summary import Case

Report = Mapping[str, Any]
_MEANS = ("iou", "iou_by_picture", "boundary_iou", "top1", "top5")
_HEADINGS = {
    "iou": "mean IoU",
    "iou_by_picture": "mean IoU by picture",
    "boundary_iou": "boundary IoU",
    "top1": "top-1",
    "top5": "top-5",
}


def write_report(folder: Path, report: Report, cases: Sequence[Case]) -> str:
    """All files of a run; returns the markdown."""
    text = markdown(report)
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    (folder / "report.md").write_text(text)
    if cases:
        _draw(folder, report, cases)
        write_contact_sheet(folder / "contact_sheet.png", cases)
    return text


def markdown(report: Report) -> str:
    """The report for people."""
    asked = ", ".join(f"{name} {value}" for name, value in report["asked"].items() if value)
    head = [
        f"# {report['model']}, revision {report['revision'][:16]}",
        "",
        f"{report['objects']} objects on {report['pictures']} pictures, {report['failed']} failed; {asked}.",
        "Figures of groups and classes are those after the last click.",
    ]
    groups = [[name, row["objects"], row["pictures"], *(row[key] for key in _MEANS)] for name, row in _groups(report)]
    parts = [head, _table(["group", "objects", "pictures", *_HEADINGS.values()], groups)]
    if len(report["clicks"]) > 1:
        keys = [key for key in _MEANS if key != "iou_by_picture"]
        rows = [[row["click"], row["error"], *(row[key] for key in keys)] for row in report["clicks"]]
        parts.append(_table(["clicks", "1 - IoU", *(_HEADINGS[key] for key in keys)], rows))
        counts = [f"{row['click']} click{'s' * (row['click'] > 1)}" for row in report["clicks"]]
        errors = [[name, *(row["errors"][name] for row in report["clicks"])] for name, _ in _groups(report)]
        parts.append(_table(["1 - IoU by group", *counts], errors))
    if report["average_precision"]:
        names = list(report["average_precision"]["all"])
        rows = [[split, *row.values()] for split, row in report["average_precision"].items()]
        parts.append(_table(["mask AP, given detections", *names], rows))
    if report["recognisers"]:
        parts += _recogniser_tables(report["recognisers"])
    if report["confusions"]:
        rows = [[row["class"], row["objects"], row["wrong"], _taken(row)] for row in report["confusions"]]
        parts.append(_table(["class", "objects", "named wrongly", "taken for"], rows))
    parts.append(_latency_table(report["latency_ms"]))
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _groups(report: Report) -> list[tuple[str, Mapping[str, Any]]]:
    return list(report["groups"].items())


def _recogniser_tables(recognisers: Report) -> list[list[str]]:
    """Whose names are better at which cost, then by group."""
    kinds = recognisers["rows"]
    headings = ["recogniser, same masks", "top-1", "top-5", "ms a mask (p50)", "GFLOP a mask"]
    rows = []
    for kind, row in kinds.items():
        whole = row["groups"]["all"]
        rows.append([kind, whole["top1"], whole["top5"], row["ms"].get("p50"), f"{row['gflop']:.3g}"])
    text = (
        f"Encoding a picture once, which all of them need for the masks, takes {recognisers['image_gflop']:.1f} GFLOP."
    )
    groups = list(next(iter(kinds.values()))["groups"])
    by_group = [[name, *(row["groups"][name]["top1"] for row in kinds.values())] for name in groups]
    return [[*_table(headings, rows), "", text], _table(["top-1 by group", *kinds], by_group)]


def _taken(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in row["taken_for"].items())


def _latency_table(latency: Mapping[str, Mapping[str, float]]) -> list[str]:
    names = list(dict.fromkeys(name for figures in latency.values() for name in figures))
    rows = [[kind, *(figures.get(name) for name in names)] for kind, figures in latency.items()]
    return _table(["latency in ms", *names], rows)


def _table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [f"| {' | '.join(headings)} |", "|---" + "|---:" * (len(headings) - 1) + "|"]
    return lines + [f"| {' | '.join(_cell(value) for value in row)} |" for row in rows]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) <= 1 else f"{value:.1f}"
    return str(value).replace("|", "\\|")


def _draw(folder: Path, report: Report, cases: Sequence[Case]) -> None:
    names, rows = zip(*_groups(report), strict=True)
    shown = {_HEADINGS[key]: [row[key] for row in rows] for key in ("iou", "boundary_iou", "top1", "top5")}
    plots.bars(folder / "groups.png", title="Quality by group", labels=names, series=shown)
    counts, edges = np.histogram([case.record.last.iou for case in cases], bins=10, range=(0, 1))
    labels = [f"{low:.1f} to {high:.1f}" for low, high in pairwise(edges)]
    shares = (counts / counts.sum()).tolist()
    plots.bars(folder / "iou.png", title="Share of objects by IoU", labels=labels, series={"objects": shares})
    if len(report["clicks"]) > 1:
        series = {_HEADINGS[key]: [row[key] for row in report["clicks"]] for key in ("iou", "boundary_iou", "top1")}
        clicks = [str(row["click"]) for row in report["clicks"]]
        plots.lines(folder / "clicks.png", title="Quality after each click", labels=clicks, series=series)
    latency = report["latency_ms"]
    names = tuple(dict.fromkeys(name for row in latency.values() for name in row if name != "count"))
    if names:
        series = {f"{kind} click": [row.get(name) for name in names] for kind, row in latency.items()}
        plots.bars(folder / "latency.png", title="Latency in milliseconds", labels=names, series=series)
