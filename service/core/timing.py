"""Where a request spends its time, and when that time is over."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from service.core.errors import DeadlineExceeded
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


@asynccontextmanager
async def before(deadline: float) -> AsyncIterator[None]:
    """Cancel the body at `deadline` (of `time.monotonic`) and raise DeadlineExceeded."""
    seconds = deadline - time.monotonic()
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded("the request took longer than its time limit") from error
