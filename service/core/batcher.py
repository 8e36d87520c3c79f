"""Coalesces work on the same key into one call of a model, within bounds.

A lone item goes at once; what arrives while all slots are busy is gathered, so batches grow just with the load. Items
whose caller has gone are dropped before they cost anything; interactive ones go before background ones.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from service.core.errors import Overloaded
from service.core.ports import Observer

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """At most `batch` items in a call, `queue` items waiting, `slots` calls at a time.

    `seconds` bounds what an interactive item may have to wait and to run at the pace measured last: whoever would miss
    its deadline anyway is told at once, and costs nothing.
    """

    batch: int
    queue: int
    slots: int
    seconds: float = math.inf


@dataclass(slots=True, eq=False)
class _Entry(Generic[Key, Item, Result]):
    key: Key
    items: Sequence[Item]
    future: "asyncio.Future[Sequence[Result]]"
    enqueued: float = field(default_factory=time.monotonic)
    waited: float = 0.0
    context: Context = field(default_factory=copy_context)


class Batcher(Generic[Key, Item, Result]):
    """Queues items by key and runs them in batches; answers come back in the order of the items."""

    def __init__(
        self,
        name: str,
        run: Callable[[Key, Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        limits: BatchLimits,
        observer: Observer,
    ) -> None:
        self._name = name
        self._run = run
        self._limits = limits
        self._observer = observer
        self._queues: tuple[deque[_Entry[Key, Item, Result]], ...] = (deque(), deque())  # interactive, background
        self._depth = 0
        self._running: set[asyncio.Task[None]] = set()
        self._seconds_per_item = 0.0

    async def submit(self, key: Key, items: Sequence[Item], *, background: bool = False) -> tuple[list[Result], float]:
        """Results in order, and the seconds spent waiting. Raises Overloaded at once when the queue is full or slow."""
        if self._depth > 0 and (self._full(len(items)) or (not background and self._late(len(items)))):
            self._observer.dropped(self._name, "overloaded")
            raise Overloaded(
                f"{self._depth} items wait for the {self._name}; try again", retry_after=self.drain_seconds()
            )
        loop = asyncio.get_running_loop()
        size = self._limits.batch
        entries: list[_Entry[Key, Item, Result]] = [
            _Entry(key, items[start : start + size], loop.create_future()) for start in range(0, len(items), size)
        ]
        self._queues[background].extend(entries)
        self._change_depth(len(items))
        self._pump()
        try:
            results = await asyncio.gather(*(entry.future for entry in entries))
        finally:
            for entry in entries:
                entry.future.cancel()
        return [result for part in results for result in part], max(entry.waited for entry in entries)

    def promote(self, key: Key) -> None:
        """Put the background items of a key among the interactive ones: somebody waits for them now."""
        interactive, background = self._queues
        chosen = [entry for entry in background if entry.key == key]
        for entry in chosen:
            background.remove(entry)
        interactive.extend(chosen)

    def drain_seconds(self) -> float:
        """How long the queue takes to empty at the pace measured last; at least a second for Retry-After."""
        return max(1.0, self._depth * self._seconds_per_item / self._limits.slots)

    def _full(self, more: int) -> bool:
        return self._depth + more > self._limits.queue

    def _late(self, more: int) -> bool:
        """Whether `more` interactive items would be answered too late; background ones do not stand before them."""
        ahead = sum(len(entry.items) for entry in self._queues[False] if not entry.future.done())
        return ahead > 0 and (ahead + more) * self._seconds_per_item / self._limits.slots > self._limits.seconds

    async def close(self) -> None:
        """Wait for the calls in hand."""
        while self._running:
            await asyncio.wait(self._running)

    def _pump(self) -> None:
        while len(self._running) < self._limits.slots:
            batch = self._next_batch()
            if not batch:
                return
            # a call belongs to the request at its head, also when another one's end has started it
            task = asyncio.get_running_loop().create_task(self._run_batch(batch), context=batch[0].context)
            self._running.add(task)
            task.add_done_callback(self._finished)
            for entry in batch:  # when all callers of a call have gone, the call ends too
                entry.future.add_done_callback(partial(_stop_if_unwanted, batch, task))

    def _next_batch(self) -> list[_Entry[Key, Item, Result]]:
        for queue in self._queues:
            while queue:
                head = queue.popleft()
                if self._departed(head):
                    continue
                return [head, *self._companions(head, queue)]
        return []

    def _companions(
        self, head: _Entry[Key, Item, Result], queue: deque[_Entry[Key, Item, Result]]
    ) -> list[_Entry[Key, Item, Result]]:
        """Further entries of the same key that fit into the call, in order."""
        self._change_depth(-len(head.items))
        room = self._limits.batch - len(head.items)
        companions: list[_Entry[Key, Item, Result]] = []
        others: list[_Entry[Key, Item, Result]] = []
        while queue:
            entry = queue.popleft()
            if self._departed(entry):
                continue
            if entry.key == head.key and len(entry.items) <= room:
                companions.append(entry)
                room -= len(entry.items)
                self._change_depth(-len(entry.items))
            else:
                others.append(entry)
        queue.extend(others)
        return companions

    def _departed(self, entry: _Entry[Key, Item, Result]) -> bool:
        if not entry.future.done():
            return False
        self._change_depth(-len(entry.items))
        self._observer.dropped(self._name, "departed")
        return True

    async def _run_batch(self, batch: Sequence[_Entry[Key, Item, Result]]) -> None:
        started = time.monotonic()
        for entry in batch:
            entry.waited = started - entry.enqueued
        items = [item for entry in batch for item in entry.items]
        self._observer.batch(self._name, len(items))
        try:
            results = await self._run(batch[0].key, items)
        except asyncio.CancelledError:
            for entry in batch:
                entry.future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - handed on to the callers, not swallowed
            for entry in batch:
                if not entry.future.done():
                    entry.future.set_exception(error)
            return
        self._measure((time.monotonic() - started) / len(items))
        start = 0
        for entry in batch:
            if not entry.future.done():
                entry.future.set_result(results[start : start + len(entry.items)])
            start += len(entry.items)

    def _measure(self, seconds: float) -> None:
        """A moving average: recent calls tell best how fast the queue drains."""
        old = self._seconds_per_item
        self._seconds_per_item = seconds if old == 0.0 else 0.8 * old + 0.2 * seconds

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._pump()

    def _change_depth(self, change: int) -> None:
        self._depth += change
        self._observer.queue(self._name, self._depth)


def _stop_if_unwanted(
    batch: Sequence[_Entry[Key, Item, Result]], task: asyncio.Task[None], _: "asyncio.Future[Sequence[Result]]"
) -> None:
    if all(entry.future.cancelled() for entry in batch):
        task.cancel()
