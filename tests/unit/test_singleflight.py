"""One computation per key, whoever leaves."""

import asyncio

import pytest

from service.core.singleflight import SingleFlight


class Work:
    def __init__(self) -> None:
        self.started = 0
        self.cancelled = 0
        self.gate = asyncio.Event()

    async def __call__(self) -> str:
        self.started += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "done"


async def test_fifty_callers_share_one_computation() -> None:
    flights: SingleFlight[str] = SingleFlight()
    work = Work()
    tasks = [asyncio.ensure_future(flights.run("key", work)) for _ in range(50)]
    await asyncio.sleep(0)
    work.gate.set()
    results = await asyncio.gather(*tasks)
    assert work.started == 1
    assert [coalesced for _, coalesced in results].count(False) == 1
    assert {value for value, _ in results} == {"done"}
    assert not flights.running("key")


async def test_a_waiter_that_leaves_does_not_stop_the_others() -> None:
    flights: SingleFlight[str] = SingleFlight()
    work = Work()
    first, second = (asyncio.ensure_future(flights.run("key", work)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    work.gate.set()
    assert await second == ("done", True)
    assert work.cancelled == 0


async def test_the_last_one_out_stops_the_work_and_the_next_starts_afresh() -> None:
    flights: SingleFlight[str] = SingleFlight()
    work = Work()
    only = asyncio.ensure_future(flights.run("key", work))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    only.cancel()
    await asyncio.gather(only, return_exceptions=True)
    work.gate.set()
    assert await flights.run("key", work) == ("done", False)
    assert (work.started, work.cancelled) == (2, 1)


async def test_a_failure_reaches_all_and_is_not_kept() -> None:
    flights: SingleFlight[str] = SingleFlight()

    async def fail() -> str:
        raise ValueError("no")

    outcomes = await asyncio.gather(*(flights.run("key", fail) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(outcome, ValueError) for outcome in outcomes)
    work = Work()
    work.gate.set()
    assert await flights.run("key", work) == ("done", False)


async def test_joining_what_does_not_run_is_an_error() -> None:
    flights: SingleFlight[str] = SingleFlight()
    with pytest.raises(KeyError):
        await flights.join("key")
