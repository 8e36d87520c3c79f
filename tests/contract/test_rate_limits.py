"""One suite for every way of counting requests, and what Redis adds: one count for several gateways."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis

from service.adapters.rate_limits import LocalRates, RedisRates
from service.core.access import Rate
from service.core.ports import RateLimits
from tests.fakes import RecordingObserver
from tests.redis_server import RedisServer, redis_server

SLOW = Rate(per_second=0.01, burst=3)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(params=["local", "redis"])
async def rates(request: pytest.FixtureRequest, server: RedisServer) -> AsyncIterator[RateLimits]:
    if request.param == "local":
        yield LocalRates()
        return
    with server.client() as client:
        client.flushall()
    async with Redis.from_url(server.url) as connection:
        yield RedisRates(connection, observer=RecordingObserver())


async def test_a_burst_goes_through_and_then_one_has_to_wait(rates: RateLimits) -> None:
    waits = [await rates.take("a", SLOW) for _ in range(5)]
    assert waits[:3] == [0, 0, 0]
    assert all(90 < wait <= 100 for wait in waits[3:]), "who is refused takes nothing, so nobody waits longer for it"


async def test_buckets_are_apart(rates: RateLimits) -> None:
    assert [await rates.take(name, Rate(0.01, 1)) for name in ("a", "b")] == [0, 0]
    assert await rates.take("a", Rate(0.01, 1)) > 0


async def test_after_the_time_told_there_is_one_again(rates: RateLimits) -> None:
    rate = Rate(per_second=0.5, burst=1)  # slow, since the machine may be
    assert await rates.take("a", rate) == 0
    wait = await rates.take("a", rate)
    assert 0 < wait <= 2
    await asyncio.sleep(wait + 0.01)  # clocks differ by that much
    assert await rates.take("a", rate) == 0


async def test_a_bucket_never_holds_more_than_its_burst() -> None:
    now = [0.0]
    rates, rate = LocalRates(lambda: now[0]), Rate(per_second=1, burst=2)
    for _ in range(3):
        assert [await rates.take("a", rate) for _ in range(3)] == [0, 0, pytest.approx(1)]
        now[0] += 1_000_000


async def test_in_the_long_run_the_rate_holds() -> None:
    now = [0.0]
    rates, rate, taken = LocalRates(lambda: now[0]), Rate(per_second=10, burst=5), 0
    for _ in range(10_000):
        now[0] += 0.01
        taken += await rates.take("a", rate) == 0
    assert taken == pytest.approx(100 * 10 + 5, abs=1)


async def test_two_gateways_share_a_bucket_that_ends_with_its_use(server: RedisServer) -> None:
    with server.client() as client:
        client.flushall()
    async with AsyncExitStack() as stack:
        gateways, observer = [], RecordingObserver()
        for _ in range(2):
            connection = await stack.enter_async_context(Redis.from_url(server.url))
            gateways.append(RedisRates(connection, observer=observer))
        waits = await asyncio.gather(*(gateways[index % 2].take("a", Rate(1, 10)) for index in range(40)))
    assert (sum(wait == 0 for wait in waits), dict(observer.counts)) == (10, {})
    with server.client() as client:
        assert 8_000 < client.pttl("ovsam:rate:a") <= 10_000


async def test_while_redis_is_gone_or_hangs_each_gateway_counts_for_itself(tmp_path: Path) -> None:
    observer = RecordingObserver()
    with redis_server(tmp_path) as server:
        async with Redis.from_url(server.url) as connection:
            rates = RedisRates(connection, observer=observer)
            assert await rates.take("a", SLOW) == 0
            server.stop()
            assert [await rates.take("a", SLOW) > 0 for _ in range(4)] == [False, False, False, True]
            server.start()
            await asyncio.sleep(2.1)
            with server.client() as client:
                assert await rates.take("b", SLOW) == 0
                assert client.exists("ovsam:rate:b"), "it is asked again by itself"
            server.signal(signal.SIGSTOP)
            started = time.monotonic()
            assert [await rates.take("c", SLOW) > 0 for _ in range(5)] == [False, False, False, False, True]
            assert time.monotonic() - started < 5
    assert observer.counts["fault:rate"] == 4
