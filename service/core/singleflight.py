"""One computation per key, however many ask at once."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Result = TypeVar("Result")


@dataclass(slots=True)
class _Flight(Generic[Result]):
    task: asyncio.Task[Result]
    waiters: int = 0


class SingleFlight(Generic[Result]):
    """Callers of the same key share one task; it ends early only when the last of them has left."""

    def __init__(self) -> None:
        self._flights: dict[str, _Flight[Result]] = {}

    def running(self, key: str) -> bool:
        """Whether a computation for this key is under way."""
        return key in self._flights

    async def join(self, key: str) -> Result:
        """Wait for the computation under way; raises KeyError when there is none."""
        return await self._wait(self._flights[key])

    async def run(self, key: str, compute: Callable[[], Awaitable[Result]]) -> tuple[Result, bool]:
        """The result, and whether someone else had started it."""
        flight = self._flights.get(key)
        coalesced = flight is not None
        if flight is None:
            flight = _Flight(asyncio.ensure_future(_as_coroutine(compute)))
            self._flights[key] = flight
            flight.task.add_done_callback(lambda task: self._land(key, task))
        return await self._wait(flight), coalesced

    async def _wait(self, flight: _Flight[Result]) -> Result:
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if flight.waiters == 0 and not flight.task.done():
                self._abandon(flight)

    def _abandon(self, flight: _Flight[Result]) -> None:
        """Nobody waits any more: stop, and let the next caller start afresh instead of joining a dying task."""
        for key, running in list(self._flights.items()):
            if running is flight:
                del self._flights[key]
        flight.task.cancel()

    def _land(self, key: str, task: asyncio.Task[Result]) -> None:
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]
        if not task.cancelled():
            task.exception()  # marks it as seen: every waiter may have left


async def _as_coroutine(compute: Callable[[], Awaitable[Result]]) -> Result:
    return await compute()
