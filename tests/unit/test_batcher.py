"""The prompt batcher: coalesces, bounds, drops the departed, keeps order."""

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar

import pytest

from service.core.batcher import Batcher, BatchLimits
from service.core.errors import Overloaded
from tests.fakes import RecordingObserver


class Doubler:
    """A model that doubles numbers once `gate` is open."""

    def __init__(self, *, batch: int = 4, queue: int = 100, slots: int = 1, seconds: float = 60.0) -> None:
        self.calls: list[tuple[str, list[int]]] = []
        self.gate = asyncio.Event()
        self.cancelled = 0
        self.observer = RecordingObserver()
        limits = BatchLimits(batch=batch, queue=queue, slots=slots, seconds=seconds)
        self.batcher: Batcher[str, int, int] = Batcher("double", self._run, limits=limits, observer=self.observer)

    async def _run(self, key: str, items: Sequence[int]) -> list[int]:
        self.calls.append((key, list(items)))
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if 13 in items:
            raise ValueError("13")
        return [2 * item for item in items]


def later(model: Doubler, key: str, *items: int, background: bool = False) -> "asyncio.Task[tuple[list[int], float]]":
    return asyncio.ensure_future(model.batcher.submit(key, items, background=background))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_lone_item_goes_at_once() -> None:
    model = Doubler()
    model.gate.set()
    assert (await model.batcher.submit("a", [21]))[0] == [42]


async def test_what_waits_for_one_key_shares_a_call_in_order() -> None:
    model = Doubler()
    tasks = [later(model, "a", number) for number in range(6)]
    await settle()
    model.gate.set()
    assert [task.result()[0] for task in tasks if await task] == [[0], [2], [4], [6], [8], [10]]
    assert model.calls == [("a", [0]), ("a", [1, 2, 3, 4]), ("a", [5])]


async def test_keys_never_share_a_call() -> None:
    model = Doubler()
    tasks = [later(model, key, index) for index, key in enumerate("abab")]
    await settle()
    model.gate.set()
    await asyncio.gather(*tasks)
    assert model.calls == [("a", [0]), ("b", [1, 3]), ("a", [2])]


async def test_a_long_list_is_cut_and_joined_again() -> None:
    model = Doubler(batch=4)
    model.gate.set()
    assert (await model.batcher.submit("a", range(10)))[0] == [2 * number for number in range(10)]
    assert max(len(items) for _, items in model.calls) == 4


async def test_background_waits_for_interactive_and_can_be_promoted() -> None:
    model = Doubler()
    tasks = [later(model, "first", 1)]
    await settle()
    tasks += [later(model, "quiet", 2, background=True), later(model, "wanted", 3, background=True)]
    await settle()
    tasks.append(later(model, "click", 4))
    await settle()
    model.batcher.promote("wanted")
    await settle()
    model.gate.set()
    await asyncio.gather(*tasks)
    assert [key for key, _ in model.calls] == ["first", "click", "wanted", "quiet"]


async def test_a_full_queue_says_no_at_once_and_when_to_come_again() -> None:
    model = Doubler(batch=1, queue=2)
    tasks = [later(model, "a", number) for number in range(3)]
    await settle()
    with pytest.raises(Overloaded) as refused:
        await model.batcher.submit("a", [9])
    assert refused.value.retry_after >= 1
    model.gate.set()
    assert [result for result, _ in await asyncio.gather(*tasks)] == [[0], [2], [4]]
    assert model.observer.counts["dropped:double:overloaded"] == 1
    assert model.observer.depths["double"] == 0


async def test_a_queue_too_slow_for_the_deadline_says_no_to_interactive_items_alone() -> None:
    """One item took about 50 ms, so two of them do not fit into 60 ms any more."""
    model = Doubler(batch=1, seconds=0.06)
    started = later(model, "a", 0)
    await asyncio.sleep(0.05)
    model.gate.set()
    await started
    model.gate.clear()
    tasks = [later(model, "a", number) for number in (1, 2)]  # one runs, one waits
    await settle()
    with pytest.raises(Overloaded):
        await model.batcher.submit("a", [3])
    tasks.append(later(model, "a", 4, background=True))
    await settle()
    model.gate.set()
    assert [result for result, _ in await asyncio.gather(*tasks)] == [[2], [4], [8]]


async def test_departed_callers_cost_nothing() -> None:
    model = Doubler()
    first = later(model, "a", 1)
    await settle()
    gone = later(model, "b", 2)
    await settle()
    gone.cancel()
    await settle()
    model.gate.set()
    await first
    await settle()
    assert [key for key, _ in model.calls] == ["a"]
    assert model.observer.counts["dropped:double:departed"] == 1
    assert model.observer.depths["double"] == 0


async def test_a_call_ends_when_all_its_callers_have_gone_and_not_before() -> None:
    model = Doubler(slots=1)
    blocker = later(model, "x", 0)
    await settle()
    one, two = later(model, "a", 1), later(model, "a", 2)
    await settle()
    blocker.cancel()
    await settle()
    assert model.cancelled == 1
    one.cancel()
    await settle()
    assert model.cancelled == 1
    two.cancel()
    await settle()
    assert model.cancelled == 2


async def test_a_failure_reaches_its_callers_and_nobody_else() -> None:
    model = Doubler()
    bad, good = later(model, "a", 13), later(model, "b", 1)
    await settle()
    model.gate.set()
    with pytest.raises(ValueError, match="13"):
        await bad
    assert (await good)[0] == [2]


async def test_a_thousand_calls_of_which_half_are_cancelled_leak_nothing() -> None:
    model = Doubler(batch=8, queue=2000, slots=2)
    tasks = [later(model, str(number % 7), 100 + number) for number in range(1000)]
    await settle()
    for number in range(0, 1000, 2):
        tasks[number].cancel()
    model.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for number in range(1, 1000, 2):
        outcome = results[number]
        assert isinstance(outcome, tuple)
        assert outcome[0] == [200 + 2 * number]
    await model.batcher.close()
    assert model.observer.depths["double"] == 0
    assert len(asyncio.all_tasks()) == 1


async def test_a_call_belongs_to_the_request_at_its_head_also_when_another_ones_end_starts_it() -> None:
    whose: ContextVar[str] = ContextVar("whose", default="nobody")
    seen: list[str] = []

    async def run(_: str, items: Sequence[int]) -> list[int]:
        await asyncio.sleep(0)
        seen.append(whose.get())
        return list(items)

    limits = BatchLimits(batch=4, queue=100, slots=1, seconds=60.0)
    batcher: Batcher[str, int, int] = Batcher("plain", run, limits=limits, observer=RecordingObserver())

    async def ask(name: str) -> None:
        whose.set(name)
        await batcher.submit(name, [1])

    await asyncio.gather(*(ask(name) for name in ("first", "second", "third")))
    assert seen == ["first", "second", "third"]
