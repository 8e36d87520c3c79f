"""Load on a running gateway: one client after the other, many at once, or open loop at a given rate."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx

Call = Callable[[], Awaitable[httpx.Response]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds of the good answers, how many were not, and how long all took."""

    seconds: list[float]
    failed: int
    elapsed: float

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return len(self.seconds) / self.elapsed


async def closed_loop(call: Call, *, clients: int, seconds: float) -> Outcome:
    """Each client asks again as soon as it is answered."""
    latencies: list[float] = []
    failed = 0
    started = time.perf_counter()

    async def client() -> None:
        nonlocal failed
        while time.perf_counter() - started < seconds:
            begun = time.perf_counter()
            answer = await call()
            if answer.status_code == 200:
                latencies.append(time.perf_counter() - begun)
            else:
                failed += 1

    await asyncio.gather(*(client() for _ in range(clients)))
    return Outcome(latencies, failed, time.perf_counter() - started)


async def open_loop(call: Call, *, rate: float, seconds: float) -> Outcome:
    """Requests fall due at a fixed rate, whoever is late; latency counts from the due time."""
    latencies: list[float] = []
    failed = 0
    started = time.perf_counter()

    async def one(due: float) -> None:
        nonlocal failed
        answer = await call()
        if answer.status_code == 200:
            latencies.append(time.perf_counter() - due)
        else:
            failed += 1

    tasks = []
    for index in range(int(rate * seconds)):
        due = started + index / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.ensure_future(one(due)))
    await asyncio.gather(*tasks)
    return Outcome(latencies, failed, time.perf_counter() - started)
