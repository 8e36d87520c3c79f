"""Many requests at a time, answers in order; one that fails does not stop the others."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeAlias, TypeVar

from service.client.errors import ClientError
from service.client.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")
Failure: TypeAlias = ClientError | OSError
"""The service's refusal, or a file that cannot be read."""


def in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], *, jobs: int, title: str | None = None
) -> Iterator[tuple[Item, Result | Failure]]:
    """Each item with its result or its failure; at most `jobs` under way, and as many waiting to be taken."""

    def attempt(item: Item) -> tuple[Item, Result | Failure]:
        try:
            return item, work(item)
        except (ClientError, OSError) as error:
            return item, error

    left = iter(items)
    with ThreadPoolExecutor(jobs) as pool, Progress(title, total=_length(items)) as progress:
        pending = [pool.submit(attempt, item) for item in islice(left, 2 * jobs)]
        try:
            while pending:
                result = pending.pop(0).result()
                pending += [pool.submit(attempt, item) for item in islice(left, 1)]
                progress.advance()
                yield result
        finally:
            for future in pending:
                future.cancel()


async def in_tasks(
    work: Callable[[Item], Awaitable[Result]], items: Iterable[Item], *, jobs: int, title: str | None = None
) -> AsyncIterator[tuple[Item, Result | Failure]]:
    """The same on the event loop."""
    free = asyncio.Semaphore(jobs)

    async def attempt(item: Item) -> tuple[Item, Result | Failure]:
        async with free:
            try:
                return item, await work(item)
            except (ClientError, OSError) as error:
                return item, error

    left = iter(items)
    with Progress(title, total=_length(items)) as progress:
        pending = [asyncio.ensure_future(attempt(item)) for item in islice(left, 2 * jobs)]
        try:
            while pending:
                result = await pending.pop(0)
                pending += [asyncio.ensure_future(attempt(item)) for item in islice(left, 1)]
                progress.advance()
                yield result
        finally:
            for task in pending:
                task.cancel()


def _length(items: Iterable[object]) -> int | None:
    return len(items) if isinstance(items, (list, tuple)) else None
