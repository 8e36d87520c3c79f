"""What was measured, one line per picture in a file that a later run can resume."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from service.client.masks import BoolArray, Rle, decode_rle
from service.client.options import Prompt


@dataclass(frozen=True, slots=True)
class Step:
    """One answered prompt of an object: its mask's quality, its names (best first) and the seconds it took."""

    iou: float
    boundary_iou: float
    names: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class ObjectRecord:
    """One object: its steps, the last prompt with its mask as (height, width) and RLE, or why it failed."""

    id: int
    steps: tuple[Step, ...]
    points: tuple[tuple[float, float, int], ...]
    box: tuple[float, float, float, float] | None
    size: tuple[int, int]
    counts: str | None
    error: str | None

    @property
    def last(self) -> Step:
        """The answer to the last prompt."""
        return self.steps[-1]

    def mask(self) -> BoolArray | None:
        """The last mask [H, W]."""
        return decode_rle(Rle(self.size, self.counts)) if self.counts is not None else None


@dataclass(frozen=True, slots=True)
class DetectionRecord:
    """The mask given to a detected box, as (height, width) and RLE."""

    category: int
    score: float
    size: tuple[int, int]
    counts: str


@dataclass(frozen=True, slots=True)
class PictureRecord:
    """One picture; `first_seconds` lasts from its upload to the first answer, None when the service knew it before."""

    id: int
    model: str
    revision: str
    first_seconds: float | None
    objects: tuple[ObjectRecord, ...]
    detections: tuple[DetectionRecord, ...] = ()


class RecordFile:
    """`pictures.jsonl` of a run and, beside it, what the run was asked for."""

    def __init__(self, folder: Path, asked: Mapping[str, Any]) -> None:
        self._lines = folder / "pictures.jsonl"
        self._asked_file = folder / "run.json"
        self._asked = json.dumps(asked, indent=2) + "\n"

    def start(self) -> None:
        """Begin anew; records of an earlier run are given up."""
        self._lines.parent.mkdir(parents=True, exist_ok=True)
        self._lines.write_text("")
        self._asked_file.write_text(self._asked)

    def resume(self) -> list[PictureRecord]:
        """The pictures that an earlier run with the same request has finished; begins anew when there is none."""
        if not self._asked_file.exists():
            self.start()
            return []
        if self._asked_file.read_text() != self._asked:
            raise FileExistsError(f"{self._asked_file} tells of another request; without --resume it is given up")
        whole = [line for line in self._lines.read_text().splitlines(keepends=True) if line.endswith("\n")]
        self._lines.write_text("".join(whole))  # a line that was being written when the run ended goes
        return [_read(json.loads(line)) for line in whole]

    def append(self, records: Iterable[PictureRecord]) -> Iterable[PictureRecord]:
        """Keep each record as it comes, and pass it on."""
        with self._lines.open("a") as lines:
            for record in records:
                lines.write(json.dumps(asdict(record)) + "\n")
                lines.flush()
                yield record


def shown(prompt: Prompt) -> tuple[tuple[tuple[float, float, int], ...], tuple[float, float, float, float] | None]:
    """A prompt's clicks and box as they are recorded."""
    points = tuple((float(x), float(y), int(label[0]) if label else 1) for x, y, *label in prompt.points)
    if prompt.box is None:
        return points, None
    x1, y1, x2, y2 = (float(side) for side in prompt.box)
    return points, (x1, y1, x2, y2)


def _read(fields: Mapping[str, Any]) -> PictureRecord:
    objects = (_read_object(row) for row in fields["objects"])
    detections = (DetectionRecord(**{**row, "size": tuple(row["size"])}) for row in fields["detections"])
    return PictureRecord(**{**fields, "objects": tuple(objects), "detections": tuple(detections)})


def _read_object(row: Mapping[str, Any]) -> ObjectRecord:
    changes = {
        "steps": tuple(Step(**{**step, "names": tuple(step["names"])}) for step in row["steps"]),
        "points": tuple((x, y, label) for x, y, label in row["points"]),
        "box": tuple(row["box"]) if row["box"] else None,
        "size": tuple(row["size"]),
    }
    return ObjectRecord(**{**row, **changes})
