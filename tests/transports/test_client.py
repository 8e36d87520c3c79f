"""The client against the real app over the fake network, and against an app that refuses, fails and forgets."""

import asyncio
import itertools
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI

from service.client.answers import Answer
from service.client.api import AsyncClient, Client, Wanted
from service.client.errors import RequestFailed, Unreachable
from service.client.options import Prompt
from service.client.retries import Retries
from tests.http_service import FakeService, fake_service, picture

RED = (12, 12)
GREEN = (45, 20)
QUICK = Retries(attempts=4, first=0.001)


class Recorder(httpx.AsyncBaseTransport):
    """Counts the requests on their way to the app."""

    def __init__(self, app: FastAPI) -> None:
        self._app = httpx.ASGITransport(app)
        self.sent: Counter[str] = Counter()
        self.images: set[tuple[str, str | None]] = set()  # each call, and which image its header named
        self.bytes = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.split("sha256")[0]
        self.sent[f"{request.method} {path}"] += 1
        self.images.add((f"{request.method} {path}", request.headers.get("x-image-digest")))
        self.bytes += len(request.content)
        return await self._app.handle_async_request(request)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[FakeService]:
    async with fake_service(tmp_path) as running:
        yield running


@pytest.fixture
async def recorder(service: FakeService) -> Recorder:
    return Recorder(service.app)


@pytest.fixture
async def client(recorder: Recorder) -> AsyncIterator[AsyncClient]:
    async with AsyncClient("http://test", transport=recorder, retries=QUICK) as ready:
        yield ready


@asynccontextmanager
async def listening(app: FastAPI) -> AsyncIterator[str]:
    """The app on a port, for the blocking client in a thread."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="warning", ws="none"))
    serving = asyncio.ensure_future(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


def answering(*answers: httpx.Response | Exception) -> tuple[Client, list[httpx.Request]]:
    """A client whose service gives these answers in turn, the last one for ever."""
    requests: list[httpx.Request] = []
    turns = itertools.chain(answers, itertools.repeat(answers[-1]))

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        turn = next(turns)
        if isinstance(turn, Exception):
            raise turn
        return turn

    return Client("http://test", transport=httpx.MockTransport(answer), retries=QUICK), requests


def problem(status: int, code: str, **headers: str) -> httpx.Response:
    fields = {"code": code, "detail": "why", "request_id": "r-1", "errors": [{"pointer": "/prompts", "detail": "why"}]}
    return httpx.Response(status, json=fields, headers={name.replace("_", "-"): text for name, text in headers.items()})


async def test_an_answer_has_numpy_masks_names_and_polygons(client: AsyncClient) -> None:
    answer = await client.segment(picture(), points=[RED], boxes=[(40, 16, 56, 32)], names=["green", "red"])
    red, green = answer
    assert answer.size == red.mask.shape == (48, 64)
    assert red.mask.dtype == np.bool_
    assert red.mask[9:23, 9:23].all()  # bilinear upsampling rounds the corners
    assert red.mask.sum() == red.area == 252
    assert (red.name, green.name) == ("red", "green")
    assert red.score == max(score for _, score in red.classes)
    assert red.box == (8, 8, 24, 24)
    (polygon,) = red.polygons
    assert not polygon.hole
    assert (*polygon.points.min(axis=0), *polygon.points.max(axis=0)) == red.box


async def test_an_image_is_sent_once_and_the_second_click_is_small(client: AsyncClient, recorder: Recorder) -> None:
    await client.segment(picture(), points=[RED])
    assert recorder.sent == {"HEAD /v1/images/": 1, "POST /v1/images": 1, "POST /v1/segment": 1}
    recorder.bytes = 0
    assert (await client.segment(picture(), points=[GREEN])).cache == "memory"
    assert recorder.sent["POST /v1/images"] == recorder.sent["HEAD /v1/images/"] == 1
    assert recorder.bytes < 1000


async def test_every_call_about_an_image_names_it_to_load_balancers(client: AsyncClient, recorder: Recorder) -> None:
    digest = (await client.upload(picture())).digest
    await client.segment(digest, points=[RED])
    await client.segment_everything(picture(), grid=8)
    await client.vocabularies()
    about = {"HEAD /v1/images/", "POST /v1/images", "POST /v1/segment", "POST /v1/segment/everything"}
    assert recorder.images == {(call, digest) for call in about} | {("GET /v1/vocabularies", None)}


async def test_an_image_that_another_client_sent_is_not_sent_again(service: FakeService, client: AsyncClient) -> None:
    async with AsyncClient("http://test", transport=(other := Recorder(service.app))) as second:
        upload = await client.upload(picture())
        assert not upload.known
        assert (await second.segment(picture(), points=[RED]))[0].name == "red"
        assert (await second.segment(upload.digest, points=[RED]))[0].name == "red"
    assert other.sent["POST /v1/images"] == 0


async def test_an_image_that_the_service_forgot_is_sent_again(service: FakeService, client: AsyncClient) -> None:
    digest = (await client.segment(picture(), points=[RED])).digest
    await service.http.delete(f"/v1/images/{digest}")
    assert (await client.segment(picture(), points=[RED]))[0].name == "red"
    await service.http.delete(f"/v1/images/{digest}")
    with pytest.raises(RequestFailed) as failure:
        await client.segment(digest, points=[RED])
    assert (failure.value.code, failure.value.status) == ("image-unknown", 404)


async def test_files_pixels_and_bytes_are_images(client: AsyncClient, tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(picture())
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[8:24, 8:24] = (220, 0, 0)
    for image in (file, str(file), picture(), pixels, pixels[:, :, 0]):
        assert (await client.segment(image, points=[RED]))[0].area == 252
    with pytest.raises(ValueError, match="uint8"):
        await client.segment(pixels.astype(np.float32), points=[RED])


async def test_a_prompt_that_fails_fails_alone_and_a_mask_can_be_refined(client: AsyncClient) -> None:
    answer = await client.segment(picture(), prompts=[Prompt(points=[RED], id="a"), Prompt(points=[(900, 9)], id="b")])
    assert answer[1].error is not None
    assert (answer[1].error.code, answer[1].id, answer[1].name) == ("invalid-prompt", "b", None)
    refined = Prompt(points=[RED, (1, 1, 0)], mask_ref=answer[0].mask_ref)
    assert (await client.segment(picture(), prompts=[refined], classify=False, masks=False))[0].rle is None
    with pytest.raises(RequestFailed) as failure:
        await client.segment(picture(), points=[(900, 9)])
    assert failure.value.pointer == "/prompts/0/points/0"


async def test_everything_comes_one_by_one_or_at_once(client: AsyncClient) -> None:
    streamed = [found async for found in client.everything(picture(), grid=8)]
    whole = await client.segment_everything(picture(), grid=8)
    assert sorted(str(found.name) for found in streamed) == ["blue", "green", "red"]
    assert [found.rle for found in streamed] == [found.rle for found in whole]


async def test_a_batch_keeps_its_order_and_one_bad_image_stops_nothing(client: AsyncClient, capfd: Any) -> None:
    images = [picture(64 + 4 * n) for n in range(6)]
    wanted: list[Wanted] = [(image, {"points": [RED]}) for image in (*images[:3], b"no image", *images[3:])]
    found = [answer async for _, answer in client.segment_batch(wanted, jobs=3, title="clicks")]
    sizes = [answer.size[1] if isinstance(answer, Answer) else answer for answer in found]
    failed = sizes.pop(3)
    assert isinstance(failed, RequestFailed)
    assert failed.code == "not-an-image"
    assert sizes == [64, 68, 72, 76, 80, 84]
    assert "clicks" in capfd.readouterr().err


async def test_prewarming_sends_an_image_once(client: AsyncClient, recorder: Recorder) -> None:
    assert not (await client.prewarm(picture())).known
    assert (await client.prewarm(picture())).known
    assert (await client.segment(picture(), points=[RED])).cache in {"memory", "coalesced"}
    assert recorder.sent["POST /v1/images"] == 1


async def test_the_blocking_client_answers_the_same(service: FakeService, client: AsyncClient) -> None:
    def ask(url: str) -> tuple[Answer, list[str], list[object], list[str]]:
        with Client(url) as blocking:
            answer = blocking.segment(picture(), points=[RED], names=["red", "blue"])
            names = sorted(str(found.name) for found in blocking.everything(picture(), grid=8))
            batch = [found for _, found in blocking.segment_batch([(picture(), {"points": [GREEN]})] * 5)]
            assert blocking.upload(picture()).known
            assert blocking.prewarm(picture()).known
            return answer, names, list(batch), blocking.vocabularies()

    async with listening(service.app) as url:
        answer, names, batch, vocabularies = await asyncio.to_thread(ask, url)
    awaited = await client.segment(picture(), points=[RED], names=["red", "blue"])
    assert [found.classes for found in answer] == [found.classes for found in awaited]
    assert np.array_equal(answer[0].mask, awaited[0].mask)
    assert names == ["blue", "green", "red"]
    assert [found[0].name for found in batch if isinstance(found, Answer)] == ["green"] * 5
    assert vocabularies == await client.vocabularies() == ["common"]
    assert service.backend.calls["image_encoder"] == 1


def test_the_services_own_retry_after_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("service.client.api.time.sleep", pauses.append)
    ready = httpx.Response(200, json={"vocabularies": ["common"], "default": "common"})
    client, requests = answering(problem(503, "warming", retry_after="7"), problem(429, "rate-limited"), ready)
    assert client.vocabularies() == ["common"]
    assert len(requests) == 3
    assert pauses[0] == 7.0
    assert 0 < pauses[1] <= 2 * QUICK.first


def test_a_wait_longer_than_allowed_is_told_at_once() -> None:
    client, requests = answering(problem(503, "overloaded", retry_after="3600"))
    with pytest.raises(RequestFailed) as failure:
        client.vocabularies()
    assert (failure.value.code, failure.value.request_id, len(requests)) == ("overloaded", "r-1", 1)


@pytest.mark.parametrize(("status", "code"), [(422, "invalid-prompt"), (504, "deadline"), (500, "internal")])
def test_what_would_fail_again_is_not_tried_again(status: int, code: str) -> None:
    client, requests = answering(problem(status, code))
    with pytest.raises(RequestFailed) as failure:
        client.vocabularies()
    assert (failure.value.code, len(requests)) == (code, 1)


def test_a_broken_connection_is_tried_again_and_told_at_last() -> None:
    client, requests = answering(httpx.ConnectError("refused"))
    with pytest.raises(Unreachable):
        client.vocabularies()
    assert len(requests) == QUICK.attempts


def test_an_answer_from_something_in_between_is_an_error_too() -> None:
    client, _ = answering(httpx.Response(404, text="<html>proxy</html>"))
    with pytest.raises(RequestFailed) as failure:
        client.vocabularies()
    assert failure.value.code == "http-error"


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ('{"request_id":"1"}\n{"done":false,"error":{"code":"deadline","detail":"late"}}\n', "deadline"),
        ('{"request_id":"1"}\n', None),
    ],
)
def test_a_stream_that_ends_badly_raises(lines: str, code: str | None) -> None:
    client, _ = answering(httpx.Response(200), httpx.Response(200, text=lines))
    with pytest.raises(RequestFailed if code else Unreachable) as failure:
        list(client.everything(picture()))
    assert getattr(failure.value, "code", None) == code


def test_the_client_needs_nothing_of_the_server() -> None:
    allowed = "{'service', 'httpx', 'numpy'}"
    code = (
        "import sys; import httpx, numpy; before = set(sys.modules); import service.client.api; "
        "new = {name.split('.')[0] for name in set(sys.modules) - before}; "
        f"left = new - {allowed} - set(sys.stdlib_module_names); assert not left, left; "
        "own = {name for name in sys.modules if name.startswith('service.')}; "
        "assert all(name.startswith('service.client') for name in own), own"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
