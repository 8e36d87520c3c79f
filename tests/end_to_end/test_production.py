"""Several gateways over one Redis, and parts of it killed, stopped and full, in traffic; real processes throughout."""

import asyncio
import io
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.benchmark.soak import SMALL_CACHE_MIB, soak
from tests.end_to_end.gateway import SAMPLES, Gateway, running_gateway
from tests.http_service import metric
from tests.redis_server import RedisServer, redis_server

COFFEE = (SAMPLES / "coffee.jpg").read_bytes()
CLICK = {"prompts": [{"points": [{"x": 150, "y": 100}]}], "classify": None}


def noise(seed: int) -> bytes:
    """A new image of 200 x 300 pixels."""
    pixels = np.random.default_rng(seed).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def parts(content: bytes) -> dict[str, Any]:
    return {"image": content, "request": (None, b'{"prompts":[{"points":[{"x":150,"y":100}]}],"classify":null}')}


def encodes(*gateways: Gateway) -> float:
    return sum(metric(gateway.metrics(), "ovsam_batch_items_count", model="image_encoder") for gateway in gateways)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("production")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
def gateways(redis: RedisServer, folder: Path) -> Iterator[tuple[Gateway, Gateway]]:
    with (
        running_gateway(folder, name="one", redis_url=redis.url) as one,
        running_gateway(folder, name="two", redis_url=redis.url) as two,
    ):
        yield one, two


async def click(http: httpx.AsyncClient, digest: str) -> int:
    answer = await http.post("/v1/segment", json={"image": digest, **CLICK})
    return answer.status_code


def test_sixty_four_clients_on_two_gateways_encode_a_new_image_once(gateways: tuple[Gateway, Gateway]) -> None:
    before = encodes(*gateways)

    async def storm() -> list[httpx.Response]:
        async with gateways[0].async_client() as one, gateways[1].async_client() as two:
            content = noise(1)
            calls = [(one, two)[index % 2].post("/v1/segment", files=parts(content)) for index in range(64)]
            return list(await asyncio.gather(*calls))

    answers = asyncio.run(storm())
    assert {answer.status_code for answer in answers} == {200}
    assert encodes(*gateways) == before + 1
    assert len({answer.json()["results"][0]["area"] for answer in answers}) == 1


def test_a_second_gateway_needs_no_image(gateways: tuple[Gateway, Gateway]) -> None:
    one, two = gateways
    with one.client() as http:
        digest = http.post("/v1/images", content=COFFEE).json()["image"]
        here = http.post("/v1/segment", json={"image": digest, **CLICK}).json()
    with two.client() as http:
        there = http.post("/v1/segment", json={"image": digest, **CLICK}).json()
    assert (here["cache"], there["cache"]) == ("memory", "redis")
    assert here["results"][0]["mask"] == there["results"][0]["mask"]


def test_redis_killed_and_stopped_in_traffic_fails_nobody(
    gateways: tuple[Gateway, Gateway], redis: RedisServer
) -> None:
    one, _ = gateways
    statuses: list[int] = []

    async def traffic() -> None:
        async with one.async_client() as http:
            digest = (await http.post("/v1/images", content=COFFEE)).json()["image"]
            running = True

            async def clicks() -> None:
                while running:
                    statuses.append(await click(http, digest))

            clickers = [asyncio.ensure_future(clicks()) for _ in range(4)]
            await asyncio.sleep(1)
            await asyncio.to_thread(redis.stop)
            await asyncio.sleep(1.5)
            fresh = await http.post("/v1/segment", files=parts(noise(2)))
            statuses.append(fresh.status_code)
            await asyncio.to_thread(redis.start)
            await asyncio.sleep(3)
            redis.signal(signal.SIGSTOP)
            started = time.monotonic()
            statuses.append((await http.post("/v1/segment", files=parts(noise(3)))).status_code)
            assert time.monotonic() - started < 10
            redis.signal(signal.SIGCONT)
            await asyncio.sleep(3)
            await http.post("/v1/segment", files=parts(noise(4)))
            running = False
            await asyncio.gather(*clickers)

    asyncio.run(traffic())
    assert set(statuses) == {200}
    assert len(statuses) > 20
    with redis.client() as client:
        assert client.keys(), "the gateway came back to Redis by itself"


def test_a_full_redis_fails_nobody(tmp_path: Path, folder: Path) -> None:
    options = ("--maxmemory", "2mb", "--maxmemory-policy", "noeviction")
    with redis_server(tmp_path, *options) as server, running_gateway(folder, redis_url=server.url) as gateway:
        with gateway.client() as http:
            statuses = [http.post("/v1/segment", files=parts(noise(10 + seed))).status_code for seed in range(4)]
        assert statuses == [200] * 4
        assert metric(gateway.metrics(), "ovsam_cache_faults_total", kind="unavailable") >= 1


def test_damaged_values_in_redis_give_right_answers(gateways: tuple[Gateway, Gateway], redis: RedisServer) -> None:
    one, two = gateways
    content = noise(20)
    with one.client() as http:
        expected = http.post("/v1/segment", files=parts(content)).json()["results"][0]["mask"]
    with redis.client() as client:
        for name in list(client.scan_iter(_type="hash")):
            for field, value in client.hgetall(name).items():
                damaged = bytearray(value)
                damaged[len(damaged) // 2] ^= 0x55
                client.hset(name, field, bytes(damaged))
    with two.client() as http:
        answer = http.post("/v1/segment", files=parts(content)).json()
    assert (answer["cache"], answer["results"][0]["mask"]) == ("miss", expected)
    assert metric(two.metrics(), "ovsam_cache_faults_total", kind="corrupt") >= 1


def test_when_the_gateway_that_encodes_is_killed_another_takes_over(redis: RedisServer, folder: Path) -> None:
    with (
        running_gateway(folder, name="victim", redis_url=redis.url) as victim,
        running_gateway(folder, name="heir", redis_url=redis.url) as heir,
    ):
        with victim.client() as http, redis.client() as client:
            digest = http.post("/v1/images", content=noise(30)).json()["image"]
            (name,) = (key for key in client.scan_iter() if digest.encode() in key and b"#" not in key)
            client.delete(name)
            # as a gateway leaves it that dies while it encodes: the lease is held, the embedding is not there
            client.set(name + b"#lease", "the victim's", px=5000)
        victim.kill()
        started = time.monotonic()
        with heir.client() as http:
            answer = http.post("/v1/segment", files=parts(noise(30)))
        assert answer.status_code == 200
        assert answer.json()["cache"] == "miss"
        assert 2 < time.monotonic() - started < 8


def test_a_thousand_requests_of_which_half_are_cancelled_leak_nothing(folder: Path) -> None:
    randomness = random.Random(4)
    with running_gateway(folder, max_queue="100000") as gateway:

        async def traffic() -> list[int | str]:
            async with gateway.async_client() as http:
                digests = [
                    (await http.post("/v1/images", content=noise(40 + seed))).json()["image"] for seed in range(5)
                ]
                statuses: list[int | str] = []
                for _ in range(10):
                    tasks = [asyncio.ensure_future(click(http, digests[index % 5])) for index in range(100)]
                    for task in tasks[::2]:
                        asyncio.get_running_loop().call_later(randomness.random() * 0.5, task.cancel)
                    results = await asyncio.gather(*tasks, return_exceptions=True)
                    statuses += [result if isinstance(result, int) else repr(result) for result in results[1::2]]
                return statuses

        asyncio.run(traffic())  # a first round brings every buffer to its size
        for _ in range(3):  # a leak grows in each round, an allocator's arenas only until they are all there
            before = gateway.resident_bytes()
            assert Counter(asyncio.run(traffic())) == {200: 500}
            grown = gateway.resident_bytes() - before
            if grown < 40 * 2**20:
                break
        time.sleep(1)
        text = gateway.metrics()
        for queue in ("prompt_decoder", "region_encoder", "image_encoder"):
            assert metric(text, "ovsam_queue_items", queue=queue) == 0
        assert grown < 40 * 2**20


def test_mixed_load_fails_nobody_and_leaves_memory_flat(redis: RedisServer, folder: Path) -> None:
    """Ten minutes of it belong to `make bench`."""
    with running_gateway(folder, redis_url=redis.url, memory_cache_mib=str(SMALL_CACHE_MIB)) as gateway:
        for _ in range(3):  # see above
            shown = asyncio.run(soak(gateway, warm_up=12, seconds=12))
            assert shown.failed == 0
            assert shown.answers > 50
            if shown.grown < 40 * 2**20:
                break
    assert shown.grown < 40 * 2**20


def test_sigterm_drains_ready_turns_false_work_in_hand_finishes(folder: Path) -> None:
    with running_gateway(folder, drain_seconds="2") as gateway:

        async def drain() -> tuple[list[int], int]:
            async with gateway.async_client() as http:
                digest = (await http.post("/v1/images", content=noise(50))).json()["image"]
                body = {"image": digest, "prompts": [{"points": [{"x": 150, "y": 100}]}] * 64}
                working = [asyncio.ensure_future(http.post("/v1/segment", json=body)) for _ in range(4)]
                await asyncio.sleep(0.2)
                gateway.process.send_signal(signal.SIGTERM)
                await asyncio.sleep(0.3)
                ready = (await http.get("/readyz")).status_code
                return [answer.status_code for answer in await asyncio.gather(*working)], ready

        statuses, ready = asyncio.run(drain())
        assert statuses == [200] * 4
        assert ready == 503
        assert gateway.process.wait(40) == 0
