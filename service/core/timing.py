"""Where a request spends its time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from service.core.ports import Observer


class Timing:
    """Seconds of each stage, filled as the request goes; a stage that runs twice counts twice."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body as part of a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + time.perf_counter() - started

    def move(self, seconds: float, *, source: str, target: str) -> None:
        """Count `seconds` of one stage under another: the wait in a queue is not the work after it."""
        self.stages[source] -= seconds
        self.stages[target] = self.stages.get(target, 0.0) + seconds

    def report(self, observer: Observer) -> None:
        """Tell the observer all stages."""
        for name, seconds in self.stages.items():
            observer.stage(name, seconds)
