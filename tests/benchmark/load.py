"""Load on a running gateway: one client after the other, many at once, or open loop at a given rate."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import httpx

Connect = Callable[[], httpx.AsyncClient]
Call = Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]


@dataclass(slots=True)
class Outcome:
    """Seconds of the good answers, how many were not, and good answers a second of the time that was measured."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0
    rate: float = 0.0

    def add(self, answer: httpx.Response, seconds: float) -> None:
        """Count one answer."""
        if answer.status_code == httpx.codes.OK:
            self.seconds.append(seconds)
        else:
            self.failed += 1


async def closed_loop(connect: Connect, call: Call, *, clients: int, seconds: float, warm_up: float = 0.0) -> Outcome:
    """Each client asks again as soon as it is answered; what the warm-up shows is not counted.

    Every client has a connection of its own, as real ones have: in a pool shared by 64, httpx lets requests wait for
    seconds that the gateway never sees. Answers that come after the time count among the latencies, not in the rate.
    """
    async with AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(connect()) for _ in range(clients)]
        await _loop(callers, call, seconds=warm_up)
        return await _loop(callers, call, seconds=seconds)


async def _loop(callers: list[httpx.AsyncClient], call: Call, *, seconds: float) -> Outcome:
    outcome, started, in_time = Outcome(), time.perf_counter(), 0

    async def client(http: httpx.AsyncClient) -> None:
        nonlocal in_time
        while (begun := time.perf_counter()) - started < seconds:
            answer = await call(http)
            ended = time.perf_counter()
            outcome.add(answer, ended - begun)
            in_time += answer.status_code == httpx.codes.OK and ended - started < seconds

    await asyncio.gather(*(client(http) for http in callers))
    outcome.rate = in_time / seconds if seconds else 0.0
    return outcome


async def open_loop(connect: Connect, call: Call, *, rate: float, seconds: float) -> Outcome:
    """Requests fall due at a fixed rate, whoever is late; latency counts from the due time."""
    outcome, started = Outcome(rate=rate), time.perf_counter()

    async def one(http: httpx.AsyncClient, due: float) -> None:
        outcome.add(await call(http), time.perf_counter() - due)

    async with connect() as http:
        tasks = []
        for index in range(int(rate * seconds)):
            due = started + index / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.ensure_future(one(http, due)))
        await asyncio.gather(*tasks)
    return outcome
