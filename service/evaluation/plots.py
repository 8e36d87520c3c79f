"""Bar and line charts, drawn with OpenCV, which is there anyway: four plain charts warrant no plotting library."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from service.evaluation.drawing import Colour, UInt8Array, text, text_width, write_picture

_COLOURS: tuple[Colour, ...] = ((200, 120, 40), (60, 170, 30), (40, 140, 240), (200, 30, 230))
_GRID: Colour = (225, 225, 225)
_WIDTH, _BAR, _PLOT_HEIGHT = 760, 16, 300


def bars(path: Path, *, title: str, labels: Sequence[str], series: Mapping[str, Sequence[float | None]]) -> None:
    """Horizontal bars grouped by label, one colour for each series, each with its value."""
    left = max(text_width(label) for label in labels) + 24
    group = _BAR * len(series) + 12
    canvas = _canvas(title, tuple(series), height=56 + group * len(labels) + 12)
    most = max((value for values in series.values() for value in values if value is not None), default=0.0) or 1.0
    room = _WIDTH - left - 80
    for row, label in enumerate(labels):
        top = 56 + group * row
        text(canvas, label, (12, top + group // 2))
        for index, values in enumerate(series.values()):
            value, y = values[row], top + _BAR * index
            if value is not None:
                end = left + round(room * value / most)
                cv2.rectangle(canvas, (left, y), (end, y + _BAR - 3), _COLOURS[index % len(_COLOURS)], -1)
                text(canvas, _number(value), (end + 6, y + _BAR - 4))
    write_picture(str(path), canvas)


def lines(path: Path, *, title: str, labels: Sequence[str], series: Mapping[str, Sequence[float | None]]) -> None:
    """Shares between 0 and 1 over evenly spaced labels."""
    canvas = _canvas(title, tuple(series), height=56 + _PLOT_HEIGHT + 40)
    left, right, top = 60, _WIDTH - 30, 56
    for tenth in range(0, 11, 2):
        y = top + round(_PLOT_HEIGHT * (1 - tenth / 10))
        cv2.line(canvas, (left, y), (right, y), _GRID, 1)
        text(canvas, f"{tenth / 10:.1f}", (20, y + 5))
    places = [left + 20 + round((right - left - 40) * i / max(1, len(labels) - 1)) for i in range(len(labels))]
    for x, label in zip(places, labels, strict=True):
        text(canvas, label, (x - text_width(label) // 2, top + _PLOT_HEIGHT + 22))
    for index, values in enumerate(series.values()):
        corners = [
            (x, top + round(_PLOT_HEIGHT * (1 - value)))
            for x, value in zip(places, values, strict=True)
            if value is not None
        ]
        colour = _COLOURS[index % len(_COLOURS)]
        cv2.polylines(canvas, [np.array(corners, np.int32)], False, colour, 2, cv2.LINE_AA)
        for corner in corners:
            cv2.circle(canvas, corner, 4, colour, -1, cv2.LINE_AA)
    write_picture(str(path), canvas)


def _canvas(title: str, names: Sequence[str], *, height: int) -> UInt8Array:
    """A white sheet with a title and, for several series, a legend."""
    canvas = np.full((height, _WIDTH, 3), 255, np.uint8)
    text(canvas, title, (12, 24), size=0.6)
    x = 12
    for index, name in enumerate(names):
        cv2.rectangle(canvas, (x, 36), (x + 10, 46), _COLOURS[index % len(_COLOURS)], -1)
        text(canvas, name, (x + 15, 46))
        x += text_width(name) + 40
    return canvas


def _number(value: float) -> str:
    return f"{value:.3f}" if value <= 1 else f"{value:.0f}"
