"""Latencies as figures, and the table and JSON that a run prints."""

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds over `count` requests."""

    count: int
    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Latency":
        """Percentiles of measured seconds."""
        p50, p95, p99 = (round(1000 * float(value), 2) for value in np.percentile(seconds, [50, 95, 99]))
        return cls(len(seconds), p50, p95, p99)

    def __str__(self) -> str:
        return f"p50 {self.p50:.1f}  p95 {self.p95:.1f}  p99 {self.p99:.1f} ms ({self.count})"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value, and what it had to be."""

    name: str
    value: str
    wanted: str = ""
    holds: bool | None = None


def ratio(name: str, value: float, *, most: float | None = None, least: float | None = None) -> Figure:
    """A ratio within the run, held against its bound."""
    wanted = f"<= {most:g}" if most is not None else f">= {least:g}" if least is not None else ""
    holds = value <= most if most is not None else value >= least if least is not None else None
    return Figure(name, f"{value:.2f} x", wanted, holds)


def machine() -> str:
    """The processor and the day, without which no figure means anything."""
    text = Path("/proc/cpuinfo").read_text()
    model = next((line.split(": ")[1] for line in text.splitlines() if line.startswith("model name")), "unknown")
    return f"{model}, {text.count('processor')} cores, {platform.system()}, {time.strftime('%Y-%m-%d')}"


def table(figures: Sequence[Figure]) -> str:
    """Markdown."""
    mark = {True: "yes", False: "**no**", None: ""}
    rows = [f"| {figure.name} | {figure.value} | {figure.wanted} | {mark[figure.holds]} |" for figure in figures]
    return "\n".join(["| figure | measured | wanted | holds |", "|---|---|---|---|", *rows])


def as_json(figures: Sequence[Figure], extra: Mapping[str, object]) -> str:
    """The same for programs."""
    return json.dumps({"machine": machine(), **extra, "figures": [asdict(figure) for figure in figures]}, indent=1)
