"""Where a request spends its time, and when that time is over."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from service.core.errors import DeadlineExceeded
from service.core.ports import Observer


class Timing:
    """Seconds of each stage, told to the observer as they end; a stage that runs twice counts twice."""

    def __init__(self, observer: Observer) -> None:
        self.stages: dict[str, float] = {}
        self._observer = observer
        self._waited = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body as part of a stage, also when it fails; stages of one request follow each other."""
        started = time.perf_counter()
        self._waited = 0.0
        try:
            with self._observer.span(name):
                yield
        finally:
            self._add(name, time.perf_counter() - started - self._waited)
            if self._waited:
                self._add("queue", self._waited)

    def waited(self, seconds: float) -> None:
        """Count `seconds` of the stage under way under `queue`: the wait is not the work after it."""
        self._waited += seconds

    def _add(self, name: str, seconds: float) -> None:
        self.stages[name] = self.stages.get(name, 0.0) + seconds
        self._observer.stage(name, seconds)


@asynccontextmanager
async def before(deadline: float) -> AsyncIterator[None]:
    """Cancel the body at `deadline` (of `time.monotonic`) and raise DeadlineExceeded."""
    seconds = deadline - time.monotonic()
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded("the request took longer than its time limit") from error
