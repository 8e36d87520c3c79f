"""API keys before every transport: who comes in, as which tenant, and that nothing of one tenant reaches another."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from fastapi.routing import APIRoute

from service.adapters.keys import line_of, new_key
from service.transports import cvat, http_api, label_studio, metrics
from service.transports import ovsam_pb2 as pb
from service.transports.auth import needs_key
from tests.grpc_service import BothTransports, both_transports
from tests.http_service import fake_service, picture

ACME, ZOO, SLOW = new_key(), new_key(), new_key()
OPEN = {"/healthz", "/readyz", "/metrics"}
WEB = Path(__file__).resolve().parents[2] / "service" / "transports" / "web"
CALL = {"prompts": [{"points": [{"x": 12, "y": 12}]}], "classify": None}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    lines = [line_of(ACME, tenant="acme"), line_of(ZOO, tenant="zoo"), line_of(SLOW, tenant="zoo", rate=0.01, burst=3)]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
async def both(tmp_path: Path, keys: Path) -> AsyncIterator[BothTransports]:
    async with both_transports(tmp_path, api_keys_file=keys) as running:
        yield running


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def basic(user: str, key: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{key}".encode()).decode()}


def routes() -> Iterator[tuple[str, str]]:
    """Every method and path of the interface."""
    for router in (http_api.router, metrics.router, label_studio.router, cvat.router):
        for route in router.routes:
            assert isinstance(route, APIRoute)
            path = route.path.replace("{digest}", "sha256:" + "0" * 64).replace("{name}", "mine")
            yield from ((method, path) for method in route.methods or ())


def check_refused(answer: httpx.Response) -> None:
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    if answer.request.method != "HEAD":
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "unauthorized"


async def test_every_route_but_health_and_metrics_asks_for_a_key(both: BothTransports) -> None:
    asked = [(method, path) for method, path in routes() if path not in OPEN]
    assert len(asked) > 20
    for method, path in asked:
        check_refused(await both.rest.http.request(method, path))
    for path in ("/v1", "/nothing", "//v1/models", "/v1/models/", "/js/../v1/models"):
        check_refused(await both.rest.http.get(httpx.URL("http://test", raw_path=path.encode())))


async def test_the_page_health_and_the_description_are_open(both: BothTransports) -> None:
    files = [f"/{path.relative_to(WEB)}" for path in WEB.rglob("*") if path.suffix not in {"", ".md"}]
    assert len(files) > 30
    for path in (*files, "/", *OPEN, "/docs", "/docs/files/swagger-ui.css", "/openapi.json"):
        assert (await both.rest.http.get(path)).status_code == 200, path


def test_no_other_route_is_open() -> None:
    assert {path for _, path in routes() if not needs_key(path)} == OPEN


@pytest.mark.parametrize(
    "headers",
    [
        bearer(ACME),
        {"authorization": f"bearer  {ACME} "},
        {"x-api-key": ACME},
        basic("label-studio", ACME),
        basic("", ACME),
    ],
)
async def test_a_key_comes_in_each_way_that_clients_have(both: BothTransports, headers: dict[str, str]) -> None:
    assert (await both.rest.http.get("/v1/models", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(new_key()),
        bearer(ACME[:-1]),
        bearer(""),
        {"authorization": ACME},
        {"authorization": f"Token {ACME}"},
        {"authorization": "Basic !"},
        {"authorization": "Basic " + base64.b64encode(b"\xff:\xff").decode()},
        basic(ACME, ""),
        {"x-api-key": new_key()} | bearer(ACME),
    ],
)
async def test_a_wrong_key_is_refused_and_never_repeated(both: BothTransports, headers: dict[str, str]) -> None:
    answer = await both.rest.http.get("/v1/models", headers=headers)
    check_refused(answer)
    sent = [value.split()[-1] for value in headers.values() if value.split()]
    assert not [value for value in sent if len(value) > 8 and value in answer.text + str(answer.headers)]


async def test_a_body_is_not_read_before_the_key_is_known(both: BothTransports) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield bytes(65536)

    check_refused(await both.rest.http.post("/v1/images", content=body()))
    assert read <= 1


async def test_a_digest_of_another_tenant_is_not_known(both: BothTransports) -> None:
    http = both.rest.http
    digest = (await http.post("/v1/images", content=picture(), headers=bearer(ACME))).json()["image"]
    answers = []
    for name in (digest, "sha256:" + "0" * 64):
        answers += [
            await http.head(f"/v1/images/{name}", headers=bearer(ZOO)),
            await http.post("/v1/segment", json={"image": name} | CALL, headers=bearer(ZOO)),
            await http.post("/v1/segment/everything", json={"image": name}, headers=bearer(ZOO)),
        ]
    assert {answer.status_code for answer in answers} == {404}
    texts = [json.dumps(answer.json()["detail"]).replace(digest, "sha256:" + "0" * 64) for answer in answers[1::3]]
    assert texts[0] == texts[1]
    await http.delete(f"/v1/images/{digest}", headers=bearer(ZOO))
    assert (await http.head(f"/v1/images/{digest}", headers=bearer(ACME))).status_code == 200, "nor can it be deleted"


async def test_a_mask_ref_of_another_tenant_is_not_known(both: BothTransports) -> None:
    answers = {}
    for key in (ACME, ZOO):
        digest = (await both.rest.http.post("/v1/images", content=picture(), headers=bearer(key))).json()["image"]
        answer = await both.rest.http.post("/v1/segment", json={"image": digest} | CALL, headers=bearer(key))
        answers[key] = answer.json()
    refined = {"prompts": [CALL["prompts"][0] | {"mask_ref": answers[ACME]["results"][0]["mask_ref"]}]}  # type: ignore[index]
    body = {"image": answers[ZOO]["image"]["digest"]} | refined
    answer = await both.rest.http.post("/v1/segment", json=body, headers=bearer(ZOO))
    assert answer.json()["code"] == "invalid-prompt"


async def test_vocabularies_belong_to_their_tenant(both: BothTransports) -> None:
    http, path = both.rest.http, "/v1/vocabularies/mine"
    assert (await http.put(path, json={"names": ["red"]}, headers=bearer(ACME))).status_code == 204
    assert (await http.get(path, headers=bearer(ZOO))).status_code == 404
    assert (await http.delete(path, headers=bearer(ZOO))).status_code == 404
    listed = [(await http.get("/v1/vocabularies", headers=bearer(key))).json()["vocabularies"] for key in (ACME, ZOO)]
    assert listed == [["common", "mine"], ["common"]]


async def test_a_labelling_project_is_not_found_by_another_tenant_that_names_it(both: BothTransports) -> None:
    """Else its token would fetch one tenant's pictures for another."""
    fields = {"project": "1.17", "schema": "<View/>", "hostname": "http://studio:8080", "access_token": "secret"}
    answer = await both.rest.http.post("/integrations/label-studio/setup", json=fields, headers=basic("", ACME))
    assert answer.status_code == 200
    known = both.rest.app.state.label_studio
    assert known.find("acme/1.17").token == "secret"
    assert known.find("zoo/1.17").token == ""


async def test_a_used_up_rate_is_told_with_the_seconds_to_wait(both: BothTransports) -> None:
    answers = [await both.rest.http.get("/v1/models", headers=bearer(SLOW)) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].json()["code"] == "rate-limited"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 100
    assert (await both.rest.http.get("/v1/models", headers=bearer(ZOO))).status_code == 200, "other keys go on"


async def test_keys_of_a_tenant_share_its_rate(tmp_path: Path) -> None:
    path, keys = tmp_path / "keys", [new_key(), new_key(), new_key()]
    path.write_text("\n".join(line_of(key, tenant=tenant) for key, tenant in zip(keys, "aab", strict=True)))
    async with fake_service(tmp_path, api_keys_file=path, rate_per_second=0.01, rate_burst=2) as service:
        codes = [(await service.http.get("/v1/models", headers=bearer(key))).status_code for key in (*keys[:2], *keys)]
        assert codes == [200, 200, 429, 429, 200]
        assert (await service.http.get("/healthz")).status_code == 200


async def test_without_keys_everybody_comes_in_whatever_they_send(tmp_path: Path) -> None:
    async with fake_service(tmp_path) as service:
        for headers in ({}, bearer(new_key())):
            assert (await service.http.get("/v1/models", headers=headers)).status_code == 200


async def test_pages_of_other_origins_get_nothing_unless_an_operator_names_them(tmp_path: Path, keys: Path) -> None:
    asked = {"origin": "https://app.example", "access-control-request-method": "POST"}
    asked |= {"access-control-request-headers": "x-api-key, x-image-digest"}
    async with fake_service(tmp_path, api_keys_file=keys) as service:
        assert "access-control-allow-origin" not in (await service.http.options("/v1/segment", headers=asked)).headers
    async with fake_service(tmp_path, api_keys_file=keys, cors_origins="https://app.example") as service:
        allowed = await service.http.options("/v1/segment", headers=asked)
        assert allowed.status_code == 200, "the question before the call carries no key"
        assert allowed.headers["access-control-allow-origin"] == "https://app.example"
        assert "access-control-allow-credentials" not in allowed.headers
        refused = await service.http.get("/v1/models", headers={"origin": "https://app.example"})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://app.example")
        other = await service.http.options("/v1/segment", headers=asked | {"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


async def test_every_answer_carries_the_headers_that_browsers_obey(both: BothTransports) -> None:
    for path in ("/", "/js/main.js", "/v1/models", "/healthz", "/docs", "/nothing"):
        headers = (await both.rest.http.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["content-security-policy"] == "frame-ancestors 'none'"


async def test_a_body_that_does_not_come_is_told_so(tmp_path: Path) -> None:
    async def slow() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"a"
            await asyncio.sleep(0.05)

    async with both_transports(tmp_path, upload_seconds=0.3) as both:
        answer = await both.rest.http.post("/v1/images", content=slow())
        assert (answer.status_code, answer.json()["code"]) == (408, "slow-upload")

        async def chunks() -> AsyncIterator[pb.ImageChunk]:
            async for content in slow():
                yield pb.ImageChunk(content=content)

        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await both.stub.PutImage(chunks())
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert dict(failure.value.trailing_metadata() or ())["ovsam-code"] == "slow-upload"
