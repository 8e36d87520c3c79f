"""All that is kept in Redis, kept in every shape that its URL may name: real servers.

A cluster; behind Sentinels, one of them dead; and for a user of few rights over TLS, alone and behind Sentinels.
"""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import redis
from redis.exceptions import NoPermissionError

from service.adapters.leases import RedisLeases
from service.adapters.rate_limits import RedisRates
from service.adapters.redis_cache import RedisCache, RedisLimits
from service.adapters.redis_client import open_redis
from service.adapters.vocabulary_stores import RedisVocabularyStore
from service.core.access import Rate
from tests.certificates import Certificates, make_certificates
from tests.fakes import RecordingObserver
from tests.ports import free_port
from tests.redis_nodes import MASTER, RedisNode, redis_node, sentinels, until

PART = {"embedding": np.arange(12, dtype=np.float16).reshape(3, 4)}
USER = "user gateway on >secret ~ovsam:* +@read +@write +@blocking +@connection +eval +time -@dangerous"
"""As an ACL rule: the gateway's own keys, and no command that looks at others or at the server."""
WATCHER = "user watcher on >seen allchannels +ping +info +role +subscribe +publish +multi +exec +slaveof +config"
"""A Sentinel's user."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two masters with half of the slots each."""
    folder = tmp_path_factory.mktemp("cluster")
    with ExitStack() as stack:
        options = ("--save", "", "--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
        nodes = [stack.enter_context(redis_node(folder / name, *options)) for name in ("one", "two")]
        clients = [stack.enter_context(node.client()) for node in nodes]
        for client, (first, last) in zip(clients, ((0, 8191), (8192, 16383)), strict=True):
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
        clients[0].execute_command("CLUSTER MEET", "127.0.0.1", nodes[1].port)
        for client in clients:
            until(partial(slots_are_served, client))
        yield f"redis+cluster://127.0.0.1:{nodes[0].port},127.0.0.1:{nodes[1].port}"


@pytest.fixture(scope="module")
def sentinel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One master named by one Sentinel; the second Sentinel of the URL does not exist."""
    folder = tmp_path_factory.mktemp("sentinel")
    with (
        redis_node(folder / "master", "--save", "") as master,
        sentinels(folder, ["watcher"], f"sentinel monitor {MASTER} 127.0.0.1 {master.port} 1") as watchers,
    ):
        yield f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{watchers[0]}/{MASTER}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, made: Certificates) -> Iterator[str]:
    with guarded_node(tmp_path_factory.mktemp("guarded"), made) as node:
        yield f"rediss://gateway:secret@localhost:{node.port}/0?{files(made)}"


@pytest.fixture(scope="module")
def guarded_sentinel(tmp_path_factory: pytest.TempPathFactory, made: Certificates) -> Iterator[str]:
    """A guarded server named by a Sentinel that speaks TLS only."""
    folder = tmp_path_factory.mktemp("guarded-sentinel")
    with guarded_node(folder, made) as node:
        lines = [f"sentinel monitor {MASTER} 127.0.0.1 {node.port} 1"]
        lines += [f"sentinel auth-user {MASTER} watcher", f"sentinel auth-pass {MASTER} seen"]
        with sentinels(folder, ["watcher"], *lines, tls=made) as watchers:
            yield f"rediss+sentinel://gateway:secret@127.0.0.1:{watchers[0]}/{MASTER}?{files(made)}"


@contextmanager
def guarded_node(folder: Path, made: Certificates) -> Iterator[RedisNode]:
    """A server over TLS for clients with a certificate, who are nobody without a user's name and password."""
    users = folder / "users.acl"
    users.write_text(f"user default off\n{USER}\n{WATCHER}\n")
    with redis_node(folder / "server", "--save", "", "--aclfile", str(users), tls=made) as node:
        yield node


def slots_are_served(client: "redis.Redis") -> bool:
    return bool(client.cluster("INFO")["cluster_state"] == "ok")


def files(made: Certificates) -> str:
    return f"ssl_ca_certs={made.authority}&ssl_certfile={made.client}&ssl_keyfile={made.client_key}"


@pytest.fixture(params=["cluster", "sentinel", "guarded", "guarded_sentinel"])
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


@pytest.mark.parametrize("command", [("GET", "another's"), ("SET", "another's", "1"), ("KEYS", "*"), ("FLUSHALL",)])
async def test_the_gateways_user_may_do_nothing_else(guarded: str, command: tuple[str, ...]) -> None:
    client = open_redis(guarded)
    try:
        with pytest.raises(NoPermissionError):
            await client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py
    finally:
        await client.aclose()
