"""All that is kept in Redis, kept in a cluster and behind Sentinels (one of them dead) too: real servers."""

import asyncio
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import redis

from service.adapters.leases import RedisLeases
from service.adapters.rate_limits import RedisRates
from service.adapters.redis_cache import RedisCache, RedisLimits
from service.adapters.redis_client import open_redis
from service.adapters.vocabulary_stores import RedisVocabularyStore
from service.core.access import Rate
from tests.fakes import RecordingObserver

PART = {"embedding": np.arange(12, dtype=np.float16).reshape(3, 4)}
MASTER = "embeddings"


def free_port() -> int:
    """A TCP port whose cluster bus port, 10,000 above, is a port too."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port < 55000:
            return port


@contextmanager
def server(folder: Path, *options: str, arguments: tuple[str, ...] = ()) -> Iterator[int]:
    """A redis-server on a port of its own, answering."""
    port = free_port()
    folder.mkdir()
    command = ["redis-server", *arguments, "--port", str(port), "--dir", str(folder), *options]
    process = subprocess.Popen([*command, "--bind", "127.0.0.1"], stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port) as client:
            until(lambda: bool(client.ping()))
        yield port
    finally:
        process.kill()
        process.wait()


def until(holds: object, *, seconds: float = 20.0) -> None:
    """Wait until a call returns true; a server that does not answer yet is no failure."""
    assert callable(holds)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if holds():
                return
        except redis.RedisError:
            pass
        time.sleep(0.05)
    raise TimeoutError("it did not come to hold")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two masters with half of the slots each."""
    folder = tmp_path_factory.mktemp("cluster")
    with ExitStack() as stack:
        options = ("--save", "", "--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
        ports = [stack.enter_context(server(folder / name, *options)) for name in ("one", "two")]
        clients = [stack.enter_context(redis.Redis(port=port)) for port in ports]
        for client, (first, last) in zip(clients, ((0, 8191), (8192, 16383)), strict=True):
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
        clients[0].execute_command("CLUSTER MEET", "127.0.0.1", ports[1])
        for client in clients:
            until(lambda client=client: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
        yield f"redis+cluster://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}"


@pytest.fixture(scope="module")
def sentinel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One master named by one Sentinel; the second Sentinel of the URL does not exist."""
    folder = tmp_path_factory.mktemp("sentinel")
    with server(folder / "master", "--save", "") as port:
        configuration = folder / "sentinel.conf"
        configuration.write_text(f"sentinel monitor {MASTER} 127.0.0.1 {port} 1\n")
        with server(folder / "sentinel", arguments=(str(configuration), "--sentinel")) as watcher:
            yield f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{watcher}/{MASTER}"


@pytest.fixture(params=["cluster", "sentinel"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


async def test_everything_that_is_kept_in_redis_is_kept(url: str) -> None:
    """Embeddings of many images (on both nodes), leases, rates and vocabularies."""
    client, observer = open_redis(url), RecordingObserver()
    cache = RedisCache(client, limits=RedisLimits(), observer=observer)
    try:
        for image in range(20):
            await cache.put(f"image {image}", {"mask": PART})
        for image in range(20):
            found = await cache.get(f"image {image}", ["mask"])
            assert np.array_equal(found["mask"][0]["embedding"], PART["embedding"])
        await cache.delete("image 3")
        assert await cache.get("image 3", ["mask"]) == {}
        await leases_exclude(RedisLeases(client, seconds=5.0, observer=observer))
        rates = RedisRates(client, observer=observer)
        waits = [await rates.take("tenant:a", Rate(0.1, 2)) for _ in range(3)]
        assert waits[:2] == [0, 0]
        assert waits[2] > 0
        store = RedisVocabularyStore(client)
        await store.put("a", "pets", b"{}")
        assert await store.get("a", "pets") == b"{}"
        assert list(await store.names("a")) == ["pets"]
    finally:
        await cache.close()
    assert not [name for name in observer.counts if name.startswith("fault")], observer.counts


async def leases_exclude(leases: RedisLeases) -> None:
    """Who comes second waits for the first and is told when it has ended."""
    ended = False

    async def second() -> bool:
        async with leases.hold("image") as held:
            assert ended
            return held

    async with leases.hold("image") as held:
        assert held
        waiting = asyncio.ensure_future(second())
        await asyncio.sleep(0.2)
        ended = True
    assert not await waiting
