"""One suite for every embedding cache, and what only the shared one must survive; Redis is a real one."""

import asyncio
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from redis.asyncio import Redis

from service.adapters.memory_cache import MemoryCache
from service.adapters.redis_cache import RedisCache, RedisLimits
from service.adapters.tiered_cache import TieredCache
from service.core.ports import EmbeddingCache
from service.core.types import Array, Tensors
from tests.fakes import RecordingObserver
from tests.redis_server import RedisServer, redis_server

KEY = "tenant:sha256:abc:rev:1"
PART: Tensors = {
    "image_embedding": np.arange(24, dtype=np.float16).reshape(1, 2, 3, 4),
    "codes": np.arange(6, dtype=np.uint8).reshape(1, 6),
    "letterbox": np.array([1, 2, 3, 4], np.int32),
}


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as running:
        yield running


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


def shared(server: RedisServer, observer: RecordingObserver, *, value: int = 2**20, timeout: float = 2.0) -> RedisCache:
    limits = RedisLimits(ttl=100, value=value, timeout=timeout)
    return RedisCache(Redis.from_url(server.url), limits=limits, observer=observer)


@pytest.fixture(params=["memory", "redis", "tiered"])
async def cache(
    request: pytest.FixtureRequest, server: RedisServer, observer: RecordingObserver
) -> AsyncIterator[EmbeddingCache]:
    made: EmbeddingCache
    if request.param == "memory":
        made = MemoryCache(2**20)
    elif request.param == "redis":
        made = shared(server, observer)
    else:
        made = TieredCache(MemoryCache(2**20), shared(server, observer))
    yield made
    await made.close()


def noise(count: int) -> Array:
    """Codes that no compression makes smaller."""
    return np.random.default_rng(0).integers(0, 255, count, dtype=np.uint8)


def same(one: Tensors, other: Tensors) -> bool:
    return list(one) == list(other) and all(
        one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name]) for name in one
    )


async def test_parts_come_back_as_they_were(cache: EmbeddingCache) -> None:
    await cache.put(KEY, {"mask": PART, "fine/0/1": {"fine": PART["codes"]}})
    found = await cache.get(KEY, ["mask", "nothing", "fine/0/1"])
    assert set(found) == {"mask", "fine/0/1"}
    assert same(found["mask"][0], PART)


async def test_quantised_codes_take_less_room_than_they_have_bytes(
    server: RedisServer, observer: RecordingObserver
) -> None:
    smooth = np.add.outer(np.arange(300), np.arange(300)).astype(np.uint8)
    cache = shared(server, observer)
    await cache.put(KEY, {"fine/0/0": {"fine": smooth}})
    assert same((await cache.get(KEY, ["fine/0/0"]))["fine/0/0"][0], {"fine": smooth})
    with server.client() as client:
        (name,) = client.keys()
        assert client.hstrlen(name, "fine/0/0") < smooth.nbytes / 4
    await cache.close()


async def test_unknown_keys_are_misses(cache: EmbeddingCache) -> None:
    await cache.put(KEY, {"mask": PART})
    assert await cache.get(KEY + "x", ["mask"]) == {}


async def test_a_part_is_replaced(cache: EmbeddingCache) -> None:
    await cache.put(KEY, {"mask": PART})
    await cache.put(KEY, {"mask": {"codes": PART["codes"]}})
    assert list((await cache.get(KEY, ["mask"]))["mask"][0]) == ["codes"]


async def test_deleting_takes_every_part_and_no_other_key(cache: EmbeddingCache) -> None:
    await cache.put(KEY, {"mask": PART, "region": PART})
    await cache.put(KEY + "#masks", {"00": PART})
    await cache.delete(KEY)
    assert await cache.get(KEY, ["mask", "region"]) == {}
    assert set(await cache.get(KEY + "#masks", ["00"])) == {"00"}


async def test_the_memory_tier_is_bounded_by_bytes_and_drops_the_longest_unused() -> None:
    cache = MemoryCache(5000)
    big = {"codes": np.zeros(1500, np.uint8)}
    for name in ("a", "b"):
        await cache.put(name, {"mask": big})
    await cache.get("a", ["mask"])
    await cache.put("c", {"mask": big})
    assert [name for name in "abc" if await cache.get(name, ["mask"])] == ["a", "c"]
    assert cache.bytes <= 5000
    await cache.put("d", {"mask": {"codes": np.zeros(6000, np.uint8)}})
    assert await cache.get("d", ["mask"]) == {}


async def test_the_near_tier_keeps_what_the_far_one_gives(server: RedisServer, observer: RecordingObserver) -> None:
    far = shared(server, observer)
    await far.put(KEY, {"mask": PART})
    cache = TieredCache(MemoryCache(2**20), far)
    tiers = [(await cache.get(KEY, ["mask"]))["mask"][1] for _ in range(2)]
    await cache.close()
    assert tiers == ["redis", "memory"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "version", "foreign"])
async def test_damaged_entries_are_misses_and_are_removed(
    server: RedisServer, observer: RecordingObserver, damage: str
) -> None:
    cache = shared(server, observer)
    await cache.put(KEY, {"mask": PART, "region": PART})
    with server.client() as client:
        (name,) = client.keys()
        content = bytearray(client.hget(name, "mask"))
        damaged = {
            "flip": content[:-3] + bytes([content[-3] ^ 1]) + content[-2:],
            "truncate": content[: len(content) // 2],
            "empty": b"",
            "version": content[:3] + b"\xff" + content[4:],
            "foreign": b"pickled?" * 20,
        }[damage]
        client.hset(name, "mask", bytes(damaged))
        assert set(await cache.get(KEY, ["mask", "region"])) == {"region"}
        assert observer.counts["fault:corrupt"] == 1
        assert not client.hexists(name, "mask")
    await cache.close()


async def test_life_is_renewed_by_use(server: RedisServer, observer: RecordingObserver) -> None:
    cache = shared(server, observer)
    await cache.put(KEY, {"mask": PART})
    with server.client() as client:
        (name,) = client.keys()
        client.expire(name, 5)
        await cache.get(KEY, ["mask"])
        assert client.ttl(name) > 90
    await cache.close()


async def test_parts_over_the_limit_are_left_out(server: RedisServer, observer: RecordingObserver) -> None:
    cache = shared(server, observer, value=1000)
    await cache.put(KEY, {"mask": {"codes": noise(2000)}, "region": PART})
    assert set(await cache.get(KEY, ["mask", "region"])) == {"region"}
    assert observer.counts["fault:oversized"] == 1
    await cache.close()


async def test_a_dead_redis_is_a_miss_and_comes_back_by_itself(
    server: RedisServer, observer: RecordingObserver
) -> None:
    cache = shared(server, observer)
    await cache.put(KEY, {"mask": PART})
    server.stop()
    for _ in range(5):
        assert await cache.get(KEY, ["mask"]) == {}
        await cache.put(KEY, {"mask": PART})
    assert observer.counts["fault:unavailable"] >= 1
    server.start()
    end = time.monotonic() + 10
    while not await cache.get(KEY, ["mask"]) and time.monotonic() < end:
        await cache.put(KEY, {"mask": PART})
        await asyncio.sleep(0.1)
    assert set(await cache.get(KEY, ["mask"])) == {"mask"}
    await cache.close()


async def test_writes_alone_bring_a_dead_redis_back(server: RedisServer, observer: RecordingObserver) -> None:
    """Where memory answers every click, nothing but writes is left to try with."""
    cache = shared(server, observer)
    server.stop()
    for _ in range(5):
        await cache.put(KEY, {"mask": PART})
    server.start()
    end = time.monotonic() + 10
    with server.client() as client:
        while not client.keys() and time.monotonic() < end:
            await cache.put(KEY, {"mask": PART})
            await asyncio.sleep(0.1)
        assert client.keys()
    await cache.close()


async def test_a_stopped_redis_costs_its_timeout_and_then_nothing(
    server: RedisServer, observer: RecordingObserver
) -> None:
    cache = shared(server, observer, timeout=0.3)
    await cache.put(KEY, {"mask": PART})
    server.signal(signal.SIGSTOP)
    started = time.monotonic()
    for _ in range(20):
        assert await cache.get(KEY, ["mask"]) == {}
    assert time.monotonic() - started < 2.0
    assert observer.counts["fault:timeout"] == 3
    server.signal(signal.SIGCONT)
    await cache.close()


async def test_a_full_redis_keeps_nothing_and_fails_nobody(observer: RecordingObserver) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        redis_server(Path(folder), "--maxmemory", "1mb", "--maxmemory-policy", "noeviction") as server,
    ):
        cache = shared(server, observer, value=2**24)
        for index in range(5):
            await cache.put(f"{KEY}{index}", {"mask": {"codes": noise(2**20)}})
        assert observer.counts["fault:unavailable"] >= 1
        await cache.close()
