"""Callers with wrong keys, with others' digests and in a hurry, against real gateways over one Redis."""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.adapters.keys import line_of, new_key
from service.client.api import Client
from service.client.errors import RequestFailed
from tests.end_to_end.gateway import SAMPLES, Gateway, running_gateway
from tests.end_to_end.raw_http import flood, head
from tests.redis_server import RedisServer, redis_server

COFFEE = (SAMPLES / "coffee.jpg").read_bytes()
CLICK = {"prompts": [{"points": [{"x": 150, "y": 100}]}], "classify": None}
UNKNOWN = "sha256:" + "0" * 64
ACME, ZOO, SLOW = new_key(), new_key(), new_key()
RATE, BURST = 20, 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("access")


@pytest.fixture(scope="module")
def key_file(folder: Path) -> Path:
    path = folder / "keys"
    slow = line_of(SLOW, tenant="slow", rate=RATE, burst=BURST)
    path.write_text("\n".join([line_of(ACME, tenant="acme"), line_of(ZOO, tenant="zoo"), slow]) + "\n")
    return path


@pytest.fixture(scope="module")
def redis(folder: Path) -> Iterator[RedisServer]:
    with redis_server(folder) as server:
        yield server


@pytest.fixture(scope="module")
def gateways(folder: Path, key_file: Path, redis: RedisServer) -> Iterator[tuple[Gateway, Gateway]]:
    settings = {"redis_url": redis.url, "api_keys_file": str(key_file)}
    with running_gateway(folder, name="one", **settings) as one, running_gateway(folder, name="two", **settings) as two:
        yield one, two


def client(gateway: Gateway, key: str) -> httpx.Client:
    return httpx.Client(base_url=gateway.url, timeout=60, headers={"x-api-key": key})


def status(gateway: Gateway, key: str, path: str = "/v1/models") -> int:
    with client(gateway, key) as http:
        return http.get(path).status_code


def test_a_key_that_is_revoked_ends_within_seconds_and_a_new_one_begins(
    gateways: tuple[Gateway, Gateway], key_file: Path
) -> None:
    before, fresh = key_file.read_text(), new_key()

    def statuses(key: str) -> list[int]:
        return [status(gateway, key) for gateway in gateways]

    assert statuses(fresh) == [401, 401]
    key_file.write_text(before + line_of(fresh, tenant="acme") + "\n")
    time.sleep(1.5)
    assert statuses(fresh) == [200, 200]
    key_file.write_text(before)
    time.sleep(1.5)
    assert statuses(fresh) == [401, 401]
    key_file.write_text("not a key file")
    time.sleep(1.5)
    assert statuses(ACME) == [200, 200], "a broken file locks nobody out"
    key_file.write_text(before)
    for gateway in gateways:
        assert "the API keys stay as they were" in gateway.log.read_text()


def test_no_log_holds_a_key(gateways: tuple[Gateway, Gateway]) -> None:
    for gateway in gateways:
        assert status(gateway, new_key()) == 401
        assert status(gateway, ACME, f"/v1/{ACME}") == 404
        text = gateway.log.read_text()
        assert "ovsam_" not in text.replace("ovsam_requests", "")


def test_another_tenants_digest_is_unknown_and_as_fast_to_answer_as_one_that_nobody_has(
    gateways: tuple[Gateway, Gateway],
) -> None:
    with client(gateways[0], ACME) as acme, client(gateways[0], ZOO) as zoo:
        digest = acme.post("/v1/images", content=COFFEE).json()["image"]
        assert acme.post("/v1/segment", json={"image": digest, **CLICK}).status_code == 200
        seconds: dict[str, list[float]] = {digest: [], UNKNOWN: []}
        for _ in range(100):
            for name, times in seconds.items():
                started = time.perf_counter()
                answer = zoo.post("/v1/segment", json={"image": name, **CLICK})
                times.append(time.perf_counter() - started)
                assert (answer.status_code, answer.json()["code"]) == (404, "image-unknown")
        medians = [statistics.median(times) for times in seconds.values()]
        assert 0.5 < medians[0] / medians[1] < 2
        assert zoo.head(f"/v1/images/{digest}").status_code == 404
        assert zoo.delete(f"/v1/images/{digest}").status_code == 204
        assert acme.head(f"/v1/images/{digest}").status_code == 200


def test_two_gateways_share_a_rate_and_ten_thousand_tiny_requests_get_through_at_its_pace(
    gateways: tuple[Gateway, Gateway],
) -> None:
    one, _ = gateways
    before = [gateway.resident_bytes() for gateway in gateways]

    request = head("GET", "/v1/models", f"x-api-key: {SLOW}")

    async def both() -> Counter[int]:
        counts = await asyncio.gather(*(flood(gateway, request, count=5_000) for gateway in gateways))
        return sum(counts, Counter())

    started = time.monotonic()
    statuses = asyncio.run(both())
    seconds = time.monotonic() - started
    print(f"{seconds:.1f} s: {dict(statuses)}")
    assert statuses.total() == 10_000
    assert statuses.keys() == {200, 429}
    assert 0.5 * RATE * seconds < statuses[200] <= BURST + RATE * seconds + 1
    with client(one, SLOW) as http:
        while (answer := http.get("/v1/models")).status_code == 200:
            pass
    assert (answer.status_code, answer.json()["code"]) == (429, "rate-limited")
    assert int(answer.headers["retry-after"]) >= 1
    for gateway, resident in zip(gateways, before, strict=True):
        assert gateway.resident_bytes() - resident < 64 * 2**20
        assert status(gateway, ACME) == 200, "others are not held up"


def test_without_redis_each_gateway_limits_by_itself(gateways: tuple[Gateway, Gateway], redis: RedisServer) -> None:
    redis.stop()
    try:
        with client(gateways[0], SLOW) as http:
            started = time.monotonic()
            statuses = [http.get("/v1/models").status_code for _ in range(200)]
            seconds = time.monotonic() - started
        assert 1 <= statuses.count(200) <= BURST + RATE * seconds + 2
        assert 429 in statuses
        assert set(statuses) == {200, 429}
    finally:
        redis.start()


def test_the_client_takes_a_key_within_its_url(gateways: tuple[Gateway, Gateway]) -> None:
    address = gateways[0].url.removeprefix("http://")
    with Client(f"http://me:{ACME}@{address}") as known, Client(f"http://{address}") as unknown:
        assert known.vocabularies()
        with pytest.raises(RequestFailed) as failure:
            unknown.vocabularies()
    assert failure.value.code == "unauthorized"
