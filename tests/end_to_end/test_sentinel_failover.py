"""Redis behind Sentinels loses its primary in click traffic; real servers and gateways throughout."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import redis

from tests.end_to_end.gateway import Gateway, running_gateway
from tests.end_to_end.test_production import click, noise, parts
from tests.http_service import metric
from tests.redis_nodes import MASTER, RedisNode, redis_node, sentinels, until

DOWN_AFTER_MS = 1000
FAILOVER_SECONDS = 90.0
"""On a busy machine Sentinels that were kept waiting do nothing for half a minute (their tilt mode)."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A primary with a replica, and the ports of the Sentinels that watch them."""

    primary: RedisNode
    replica: RedisNode
    ports: list[int]

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in self.ports)}/{MASTER}"

    def masters(self) -> set[int]:
        """The port that each Sentinel names as the master's."""
        found: set[int] = set()
        for port in self.ports:
            address = redis.Redis(port=port).sentinel_get_master_addr_by_name(MASTER)
            assert isinstance(address, tuple)
            found.add(address[1])
        return found

    def known_to_all(self) -> bool:
        """Whether every Sentinel has seen the others and the replica."""
        for port in self.ports:
            state = redis.Redis(port=port).sentinel_master(MASTER)
            assert isinstance(state, dict)
            if (state["num-other-sentinels"], state["num-slaves"]) != (2, 1):
                return False
        return True


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with ExitStack() as stack:
        primary = stack.enter_context(redis_node(tmp_path / "primary", "--save", ""))
        follow = ("--replicaof", "127.0.0.1", str(primary.port))
        replica = stack.enter_context(redis_node(tmp_path / "replica", "--save", "", *follow))
        lines = [f"sentinel monitor {MASTER} 127.0.0.1 {primary.port} 2"]
        lines += [f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}"]
        lines += [f"sentinel failover-timeout {MASTER} 5000"]
        ports = stack.enter_context(sentinels(tmp_path, ["one", "two", "three"], *lines))
        servers = Watched(primary, replica, ports)
        until(servers.known_to_all, seconds=60)
        yield servers


@dataclass(frozen=True, slots=True)
class Traffic:
    """Clicks that memory answers at one gateway, and pictures that only Redis remembers at the other."""

    near: httpx.AsyncClient
    far: httpx.AsyncClient
    statuses: list[int]

    async def run(self, watched: Watched) -> None:
        """Kill the primary in traffic, and go on until each picture is found in Redis again."""
        digest = (await self.near.post("/v1/images", content=noise(1))).json()["image"]
        assert await self.ask(noise(2)) == "miss"
        assert await self.ask(noise(2)) == "redis"
        clickers = [asyncio.ensure_future(self.click_for_ever(digest)) for _ in range(3)]
        clickers.append(asyncio.ensure_future(self.ask_for_ever()))
        try:
            await asyncio.sleep(1)
            answered = len(self.statuses)
            await asyncio.to_thread(watched.primary.kill)
            await asyncio.to_thread(
                until, lambda: watched.masters() == {watched.replica.port}, seconds=FAILOVER_SECONDS
            )
            assert len(self.statuses) > answered, "traffic went on while there was no primary"
            await asyncio.sleep(3)  # breakers try again
            self.statuses.append((await self.near.post("/v1/segment", files=parts(noise(3)))).status_code)
            assert await self.ask(noise(3)) == "redis", "what one gateway wrote to the new primary, the other reads"
            await asyncio.sleep(1)
        finally:
            for clicker in clickers:
                clicker.cancel()
            failures = await asyncio.gather(*clickers, return_exceptions=True)
        assert all(isinstance(failure, asyncio.CancelledError) for failure in failures), failures

    async def ask(self, content: bytes) -> str:
        """Where the gateway without memory found a picture."""
        answer = await self.far.post("/v1/segment", files=parts(content))
        self.statuses.append(answer.status_code)
        return str(answer.json()["cache"])

    async def click_for_ever(self, digest: str) -> None:
        while True:
            self.statuses.append(await click(self.near, digest))

    async def ask_for_ever(self) -> None:
        while True:
            await self.ask(noise(2))


def found_in_redis(gateway: Gateway) -> float:
    return metric(gateway.metrics(), "ovsam_cache_lookups_total", result="redis")


def faults(gateway: Gateway) -> float:
    return sum(metric(gateway.metrics(), "ovsam_cache_faults_total", kind=kind) for kind in ("unavailable", "timeout"))


def test_a_primary_killed_in_traffic_fails_nobody_and_its_successor_takes_over(
    watched: Watched, tmp_path: Path
) -> None:
    statuses: list[int] = []
    with (
        running_gateway(tmp_path, name="near", redis_url=watched.url) as near,
        running_gateway(tmp_path, name="far", redis_url=watched.url, memory_cache_mib="0") as far,
    ):

        async def drive() -> None:
            async with near.async_client() as one, far.async_client() as other:
                await Traffic(one, other, statuses).run(watched)

        assert watched.masters() == {watched.primary.port}
        asyncio.run(drive())
        assert set(statuses) == {200}
        assert faults(far) > 0, "the dead primary was asked"
        before, hits = faults(far), found_in_redis(far)
        with far.client() as http:
            caches = [http.post("/v1/segment", files=parts(noise(seed))).json()["cache"] for seed in (4, 4, 3)]
        assert caches == ["miss", "redis", "redis"]
        assert found_in_redis(far) == hits + 2
        assert faults(far) == before
    with watched.replica.client() as client:
        assert client.info("replication")["role"] == "master"
        assert client.info("stats")["keyspace_hits"] > 0
        print(f"{len(statuses)} requests, none failed; {before:.0f} cache faults")
