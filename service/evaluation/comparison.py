"""What two services answered to the same prompts: figures, verdict, and pictures of where they differ."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from service.client.answers import SegmentedObject
from service.client.options import Prompt
from service.evaluation.drawing import GREEN, MAGENTA, UInt8Array, object_tile, sheet, write_picture
from service.evaluation.records import shown

_DRIFTED = 0.95  # IoU below which a single mask counts as drifted
_TILES, _COLUMNS = 24, 6  # drifted cases that are drawn


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The least mean mask IoU and the least share of equal labels of a comparison that passes."""

    mask_iou: float
    label_agreement: float


@dataclass(frozen=True, slots=True)
class Question:
    """A picture, as a file's bytes, and what is asked about it."""

    name: str
    content: bytes
    prompts: tuple[Prompt, ...]

    def pixels(self) -> UInt8Array:
        """[H, W, 3], BGR, turned as displayed."""
        image = cv2.imdecode(np.frombuffer(self.content, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise OSError(f"{self.name} cannot be decoded")
        return image.astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, and the IoU of their masks."""

    question: Question
    prompt: Prompt
    a: SegmentedObject
    b: SegmentedObject
    iou: float

    @property
    def agrees(self) -> bool:
        """Both have the same best name, or both have none; neither failed alone."""
        return self.a.name == self.b.name and (self.a.error is None) == (self.b.error is None)

    @property
    def drifted(self) -> bool:
        """Worth a look."""
        return self.iou < _DRIFTED or not self.agrees


def comparison(pairs: Sequence[Pair], *, models: Sequence[Mapping[str, str]], tolerance: Tolerance) -> dict[str, Any]:
    """Figures and verdict."""
    ious = np.array([pair.iou for pair in pairs])
    agreement = float(np.mean([pair.agrees for pair in pairs]))
    failed = sum(pair.a.error is not None or pair.b.error is not None for pair in pairs)
    alike = ious.mean() >= tolerance.mask_iou and agreement >= tolerance.label_agreement
    return {
        "a": models[0],
        "b": models[1],
        "pictures": len({pair.question.name for pair in pairs}),
        "prompts": len(pairs),
        "failed": failed,
        "mask_iou": {"mean": float(ious.mean()), "least": float(ious.min()), "identical": float((ious == 1).mean())},
        "label_agreement": agreement,
        "drifted": sum(pair.drifted for pair in pairs),
        "tolerance": {"mask_iou": tolerance.mask_iou, "label_agreement": tolerance.label_agreement},
        "within_tolerance": bool(alike and failed == 0),  # two services that fail alike have proved nothing
    }


def write_comparison(folder: Path, report: Mapping[str, Any], pairs: Sequence[Pair]) -> str:
    """The comparison as JSON and markdown, and `drifted.png` when there is anything to see; returns the markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    text = _markdown(report)
    (folder / "comparison.json").write_text(json.dumps(report, indent=2) + "\n")
    (folder / "comparison.md").write_text(text)
    picture = folder / "drifted.png"
    picture.unlink(missing_ok=True)
    worst = sorted((pair for pair in pairs if pair.drifted), key=lambda pair: pair.iou)[:_TILES]
    if worst:
        tiles = [_tile(pair) for pair in worst]
        rows = [tiles[start : start + _COLUMNS] for start in range(0, len(tiles), _COLUMNS)]
        titles = ["drifted, worst first: A green, B magenta", *("" for _ in rows[1:])]
        write_picture(str(picture), sheet(list(zip(titles, rows, strict=True))))
    return text


def _markdown(report: Mapping[str, Any]) -> str:
    ious, tolerance = report["mask_iou"], report["tolerance"]
    sides = [
        f"{side}: {(it := report[side.lower()])['asked']}, {it['model']}, {it['revision'][:16]}  " for side in "AB"
    ]
    verdict = "within" if report["within_tolerance"] else "outside"
    counts = f"{report['drifted']} drifted, {report['failed']} failed"
    head = [
        f"# Comparison: {verdict} the tolerance",
        "",
        *sides,
        f"{report['prompts']} prompts on {report['pictures']} pictures: {counts}.",
        "",
        "| | measured | at least |",
        "|---|---:|---:|",
        f"| mean mask IoU | {ious['mean']:.5f} | {tolerance['mask_iou']} |",
        f"| label agreement | {report['label_agreement']:.5f} | {tolerance['label_agreement']} |",
        f"| least mask IoU | {ious['least']:.5f} | |",
        f"| share of identical masks | {ious['identical']:.5f} | |",
    ]
    return "\n".join(head) + "\n"


def _tile(pair: Pair) -> UInt8Array:
    outlines = [(found.mask, colour) for found, colour in ((pair.a, GREEN), (pair.b, MAGENTA)) if found.rle is not None]
    points, box = shown(pair.prompt)
    caption = [f"A {_name(pair.a)}", f"B {_name(pair.b)}", f"IoU {pair.iou:.3f}  {pair.question.name}"]
    return object_tile(pair.question.pixels(), outlines, points=points, box=box, caption=caption)


def _name(found: SegmentedObject) -> str:
    if found.error is not None:
        return found.error.code
    return f"{found.name} {found.score:.2f}" if found.name else "no name"
