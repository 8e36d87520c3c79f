"""Encode leases of several processes over a real Redis: one at a time, told when it ends, freed by death."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from service.adapters.leases import LocalLeases, RedisLeases
from tests.fakes import RecordingObserver
from tests.redis_server import RedisServer, redis_server

KEY = "public:sha256:abc:rev:1"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as running:
        yield running


@asynccontextmanager
async def gateway(server: RedisServer, *, seconds: float = 5.0) -> AsyncIterator[RedisLeases]:
    client = Redis.from_url(server.url)
    yield RedisLeases(client, seconds=seconds, observer=RecordingObserver())
    await client.aclose()


async def test_one_of_many_holds_and_the_others_are_told_when_it_ends(server: RedisServer) -> None:
    told: list[float] = []
    async with gateway(server) as first, gateway(server) as second:
        holding = asyncio.Event()

        async def hold() -> float:
            async with first.hold(KEY) as held:
                assert held
                holding.set()
                await asyncio.sleep(0.5)
                return time.monotonic()

        async def wait(leases: RedisLeases) -> bool:
            await holding.wait()
            async with leases.hold(KEY) as held:
                told.append(time.monotonic())
                return held

        holder = asyncio.ensure_future(hold())
        answers = await asyncio.gather(*(wait(leases) for leases in (first, second) * 4))
        ended = await holder
    assert answers == [False] * 8
    assert min(told) >= ended - 0.05
    assert max(told) - ended < 1.0


async def test_keys_do_not_wait_for_each_other(server: RedisServer) -> None:
    async with gateway(server) as leases, leases.hold(KEY) as one, leases.hold(KEY + "x") as other:
        assert (one, other) == (True, True)


async def test_a_lease_can_be_taken_again(server: RedisServer) -> None:
    async with gateway(server) as leases:
        for _ in range(3):
            async with leases.hold(KEY) as held:
                assert held


async def test_who_waits_for_the_next_holder_is_not_told_of_the_last_ones_end(server: RedisServer) -> None:
    async with gateway(server) as leases:
        async with leases.hold(KEY):
            pass
        async with leases.hold(KEY) as held:
            assert held
            waiting = asyncio.ensure_future(taken_by(leases, tries=1))
            await asyncio.sleep(0.3)
            assert not waiting.done()
        assert not await waiting


async def test_a_lease_is_renewed_while_it_is_held(server: RedisServer) -> None:
    async with gateway(server, seconds=0.6) as first, gateway(server, seconds=0.6) as second:
        async with first.hold(KEY) as held:
            assert held
            started = time.monotonic()
            waiting = asyncio.ensure_future(taken_by(second))
            await asyncio.sleep(1.5)
            with server.client() as client:
                assert client.exists(f"ovsam:{{{KEY}}}#lease")
        assert time.monotonic() - started >= 1.5
        assert await waiting


async def taken_by(leases: RedisLeases, *, tries: int = 100) -> bool:
    """Whether the lease came to be held, after waiting so often; the embedder waits until it is."""
    for _ in range(tries):
        async with leases.hold(KEY) as held:
            if held:
                return True
    return False


async def test_a_dead_holder_frees_the_lease_within_its_time(server: RedisServer) -> None:
    with server.client() as client:
        client.set(f"ovsam:{{{KEY}}}#lease", "dead", px=800)
    async with gateway(server) as leases:
        started = time.monotonic()
        assert await taken_by(leases)
        assert 0.5 < time.monotonic() - started < 3.0


async def test_a_holder_that_lost_its_lease_does_not_end_its_successors(server: RedisServer) -> None:
    async with gateway(server) as leases:
        async with leases.hold(KEY) as held:
            assert held
            with server.client() as client:
                client.set(f"ovsam:{{{KEY}}}#lease", "successor")
        with server.client() as client:
            assert client.get(f"ovsam:{{{KEY}}}#lease") == b"successor"


async def test_without_redis_each_process_works_for_itself(server: RedisServer) -> None:
    async with LocalLeases().hold(KEY) as held:
        assert held
    async with gateway(server) as leases:
        server.stop()
        started = time.monotonic()
        for _ in range(10):
            async with leases.hold(KEY) as held:
                assert held
        assert time.monotonic() - started < 3.0


async def test_a_cancelled_holder_releases(server: RedisServer) -> None:
    async with gateway(server) as leases:

        async def hold_for_ever() -> None:
            async with leases.hold(KEY):
                await asyncio.sleep(60)

        holder = asyncio.ensure_future(hold_for_ever())
        await asyncio.sleep(0.2)
        holder.cancel()
        await asyncio.gather(holder, return_exceptions=True)
        with server.client() as client:
            assert not client.exists(f"ovsam:{{{KEY}}}#lease")
