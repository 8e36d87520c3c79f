"""REST as API.md promises it: every route, every header, every refusal."""

import asyncio
import base64
import hashlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from service.core.errors import BackendUnavailable
from service.core.types import BoolArray
from tests.fakes import FakeBackend
from tests.http_service import FakeService, fake_service, picture

RED = {"id": "r", "points": [{"x": 12, "y": 12}]}
GREEN = {"id": "g", "points": [{"x": 45, "y": 20}]}


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[FakeService]:
    async with fake_service(tmp_path) as running:
        yield running


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


async def upload(service: FakeService, content: bytes | None = None) -> str:
    answer = await service.http.post("/v1/images", content=content or picture())
    assert answer.status_code == 201, answer.text
    return str(answer.json()["image"])


async def ask(service: FakeService, body: dict[str, Any], path: str = "/v1/segment") -> dict[str, Any]:
    answer = await service.http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def refusal(service: FakeService, body: dict[str, Any] | bytes, path: str = "/v1/segment") -> dict[str, Any]:
    """The problem that a bad body is answered with, after checking its form."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await service.http.post(path, content=content, headers={"content-type": "application/json"})
    return problem(answer)


def problem(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    fields = dict(answer.json())
    assert fields["status"] == answer.status_code
    assert fields["request_id"] == answer.headers["x-request-id"]
    return fields


def mask_of(result: dict[str, Any]) -> BoolArray:
    rle = result["mask"]
    mask: BoolArray = coco.decode({"size": rle["size"], "counts": rle["counts"].encode()}).astype(bool)
    return mask


async def test_the_digest_is_the_sha256_of_the_bytes_sent(service: FakeService) -> None:
    answer = await service.http.post("/v1/images", content=picture())
    expected = {"image": digest(picture()), "width": 64, "height": 48, "embedding": "ready"}
    assert answer.json() == expected


async def test_an_upload_may_be_multipart(service: FakeService) -> None:
    answer = await service.http.post("/v1/images", files={"image": picture()})
    assert answer.status_code == 201
    assert answer.json()["image"] == digest(picture())


async def test_head_and_delete_follow_the_life_of_an_embedding(service: FakeService) -> None:
    name = await upload(service)
    known = await service.http.head(f"/v1/images/{name}")
    assert (known.status_code, known.headers["etag"]) == (200, f'"{name}"')
    assert (await service.http.delete(f"/v1/images/{name}")).status_code == 204
    assert (await service.http.head(f"/v1/images/{name}")).status_code == 404


async def test_a_background_upload_is_pending_and_then_ready(tmp_path: Path) -> None:
    async with fake_service(tmp_path, backend=FakeBackend(seconds=1.0)) as service:
        answer = await service.http.post("/v1/images", content=picture(), headers={"prefer": "respond-async"})
        assert (answer.status_code, answer.json()["embedding"]) == (201, "pending")
        reply = await ask(service, {"image": answer.json()["image"], "prompts": [RED]})
        assert reply["cache"] == "coalesced"
        assert service.backend.calls["image_encoder"] == 1


async def test_masks_and_names_of_two_objects(service: FakeService) -> None:
    reply = await ask(service, {"image": await upload(service), "prompts": [RED, GREEN]})
    red, green = reply["results"]
    assert (red["id"], red["classes"][0]["name"]) == ("r", "red")
    assert (green["id"], green["classes"][0]["name"]) == ("g", "green")
    assert red["bbox"] == pytest.approx([8, 8, 24, 24], abs=2)
    assert red["area"] == mask_of(red).sum()
    assert mask_of(red)[12, 12]
    assert not mask_of(red)[20, 45]
    assert sum(item["score"] for item in red["classes"]) == pytest.approx(1, abs=1e-4)
    assert set(reply["timing_ms"]) >= {"fetch", "queue", "decode", "label", "render"}
    assert reply["image"] == {"digest": digest(picture()), "width": 64, "height": 48}
    assert reply["cache"] == "memory"


async def test_the_old_path_and_multipart_give_the_same_answer(service: FakeService) -> None:
    body = {"prompts": [RED]}
    parts = {"image": ("x.png", picture()), "request": (None, json.dumps(body).encode())}
    old = await service.http.post("/segment", files=parts)
    new = await ask(service, {"image": digest(picture()), "prompts": [RED]})
    assert old.status_code == 200, old.text
    old_result, new_result = old.json()["results"][0], new["results"][0]
    del old_result["mask_ref"], new_result["mask_ref"]
    assert old_result == new_result
    assert (old.json()["cache"], new["cache"]) == ("miss", "memory")


async def test_an_image_may_come_within_the_json(service: FakeService) -> None:
    reply = await ask(service, {"image": {"base64": base64.b64encode(picture()).decode()}, "prompts": [RED]})
    assert reply["image"]["digest"] == digest(picture())


async def test_the_second_click_costs_no_image_no_decoding_and_no_encoder_run(service: FakeService) -> None:
    name = await upload(service)
    for _ in range(3):
        await ask(service, {"image": name, "prompts": [RED]})
    assert service.backend.calls["image_encoder"] == 1
    assert service.metric("ovsam_cache_lookups_total", result="memory") == 3
    assert service.metric("ovsam_stage_seconds_count", stage="encode") == 1


async def test_classify_null_does_no_recognition_work(service: FakeService) -> None:
    texts = service.backend.calls["text_encoder"]
    reply = await ask(service, {"image": await upload(service), "prompts": [RED], "classify": None})
    assert reply["results"][0]["classes"] is None
    assert service.backend.calls["region_encoder"] == 0
    assert service.backend.calls["text_encoder"] == texts


async def test_own_words_and_top_k(service: FakeService) -> None:
    body = {"image": await upload(service), "prompts": [GREEN], "classify": {"names": ["red", "green"], "top_k": 1}}
    classes = (await ask(service, body))["results"][0]["classes"]
    assert [item["name"] for item in classes] == ["green"]


async def test_every_mask_format_holds_the_same_pixels(service: FakeService) -> None:
    name = await upload(service)
    masks = {}
    for form in ("rle", "polygon", "png", "none"):
        body = {"image": name, "prompts": [RED], "output": {"mask": form}}
        masks[form] = (await ask(service, body))["results"][0]
    expected = mask_of(masks["rle"])
    png = np.asarray(Image.open(io.BytesIO(base64.b64decode(masks["png"]["mask"]["base64"]))))
    drawn = np.zeros(expected.shape, np.uint8)
    rings = [np.array(ring["points"], np.int32) for ring in masks["polygon"]["mask"]["rings"]]
    cv2.fillPoly(drawn, rings, (1,))
    assert np.array_equal(png, expected)
    assert np.array_equal(drawn.astype(bool), expected)
    assert masks["none"]["mask"] is None
    assert expected.any()


async def test_previews_push_out_no_mask_that_may_be_refined(service: FakeService) -> None:
    """64 masks of an image are kept: more previews than that leave an earlier mask_ref good."""
    name = await upload(service)
    (first,) = (await ask(service, {"image": name, "prompts": [RED]}))["results"]
    preview = {"image": name, "prompts": [GREEN] * 200, "classify": None, "output": {"mask_ref": False}}
    for _ in range(3):
        assert {result["mask_ref"] for result in (await ask(service, preview))["results"]} == {None}
    (again,) = (await ask(service, {"image": name, "prompts": [RED | {"mask_ref": first["mask_ref"]}]}))["results"]
    assert again["error"] is None


async def test_a_mask_ref_refines_and_a_stale_one_fails_alone(service: FakeService) -> None:
    name = await upload(service)
    first = (await ask(service, {"image": name, "prompts": [RED]}))["results"][0]
    again = RED | {"mask_ref": first["mask_ref"]}
    stale = GREEN | {"mask_ref": "00" + "0" * 16}
    good, bad = (await ask(service, {"image": name, "prompts": [again, stale]}))["results"]
    assert (good["error"], good["area"]) == (None, first["area"])
    assert (bad["error"]["code"], bad["error"]["pointer"]) == ("invalid-prompt", "/prompts/1/mask_ref")


async def test_one_bad_prompt_fails_alone(service: FakeService) -> None:
    bad = {"id": "b", "points": [{"x": 64.5, "y": 2}]}
    good, failed = (await ask(service, {"image": await upload(service), "prompts": [RED, bad]}))["results"]
    assert good["area"] > 0
    assert failed["error"]["code"] == "invalid-prompt"
    assert failed["mask"] is None


NO_PROMPTS: dict[str, Any] = {"prompts": []}
BAD_PROMPTS: list[tuple[Any, int, str]] = [
    ({"points": [{"x": float("nan"), "y": 2}]}, 422, "invalid-prompt"),
    ({"points": [{"x": float("inf"), "y": 2}]}, 422, "invalid-prompt"),
    ({"points": [{"x": 100, "y": 2}]}, 422, "invalid-prompt"),
    ({"points": [{"x": -1, "y": 2}]}, 422, "invalid-prompt"),
    ({}, 422, "invalid-prompt"),
    ({"box": [10, 10, 10, 20]}, 422, "invalid-prompt"),
    ({"box": [100, 100, 120, 120]}, 422, "invalid-prompt"),
    ({"box": [1, float("nan"), 5, 5]}, 422, "invalid-prompt"),
    ({"points": [{"x": 1, "y": 1}] * 65}, 422, "invalid-prompt"),
    ({"box": [1, 2, 3]}, 400, "malformed"),
    ({"points": [{"x": "left", "y": 1}]}, 400, "malformed"),
    ({"points": [{"x": 1, "y": 1, "label": 2}]}, 400, "malformed"),
    ({"point": [1, 2]}, 400, "malformed"),
]


@pytest.mark.parametrize(("prompt", "status", "code"), BAD_PROMPTS)
async def test_bad_prompts_are_refused(service: FakeService, prompt: object, status: int, code: str) -> None:
    fields = await refusal(service, {"image": await upload(service), "prompts": [prompt]})
    assert (fields["status"], fields["code"]) == (status, code)
    assert fields["errors"][0]["pointer"].startswith("/prompts/0")
    assert (await service.http.get("/healthz")).status_code == 200


@pytest.mark.parametrize("count", [0, 257])
async def test_no_prompts_and_too_many_are_refused(service: FakeService, count: int) -> None:
    fields = await refusal(service, {"image": await upload(service), "prompts": [RED] * count})
    assert (fields["status"], fields["code"]) == (422, "invalid-prompt")


BAD_REQUESTS: list[tuple[Any, int, str]] = [
    (b"{", 400, "malformed"),
    ({"image": "sha256:123", "prompts": [RED]}, 400, "malformed"),
    ({"image": "sha256:" + "0" * 64, "prompts": [RED]}, 404, "image-unknown"),
    ({"prompts": [RED]}, 400, "malformed"),
    ({"image": {"base64": "%"}, "prompts": [RED]}, 400, "malformed"),
    ({"image": {"base64": "aGVsbG8="}, "prompts": [RED]}, 415, "not-an-image"),
    ({"image": {"url": "http://localhost/x.png"}, "prompts": [RED]}, 403, "fetch-refused"),
    ({"image": "sha256:" + "0" * 64, "prompts": [RED], "classify": {"vocabulary": "no"}}, 404, "vocabulary-unknown"),
    ({"image": "sha256:" + "0" * 64, "prompts": [RED], "classify": {"names": []}}, 422, "invalid-vocabulary"),
    ({"image": "sha256:" + "0" * 64, "prompts": [RED], "classify": {"names": ["x" * 101]}}, 422, "invalid-vocabulary"),
    (
        {"image": "sha256:" + "0" * 64, "prompts": [RED], "classify": {"vocabulary": "common", "names": ["a"]}},
        400,
        "malformed",
    ),
]


@pytest.mark.parametrize(("body", "status", "code"), BAD_REQUESTS)
async def test_bad_requests_are_refused(service: FakeService, body: Any, status: int, code: str) -> None:
    fields = await refusal(service, body)
    assert (fields["status"], fields["code"]) == (status, code)


async def test_a_body_over_the_limit_is_refused_with_limit_and_actual(tmp_path: Path) -> None:
    async with fake_service(tmp_path, max_body_mib=1) as service:
        fields = problem(await service.http.post("/v1/images", content=bytes(2**20 + 1)))
        assert (fields["status"], fields["code"]) == (413, "too-large")
        assert str(2**20) in fields["detail"]

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield bytes(2**17)

        streamed = problem(await service.http.post("/v1/images", content=chunks()))
        assert streamed["code"] == "too-large"


async def test_a_backend_failure_is_503_with_retry_after_and_not_ready(service: FakeService) -> None:
    name = await upload(service)
    service.backend.failure = BackendUnavailable("the model server does not answer", retry_after=2.5)
    answer = await service.http.post("/v1/segment", json={"image": name, "prompts": [RED]})
    assert (problem(answer)["code"], answer.headers["retry-after"]) == ("backend-unavailable", "3")
    assert (await service.http.get("/readyz")).status_code == 503
    assert (await service.http.get("/healthz")).status_code == 200
    service.backend.failure = None
    assert (await service.http.get("/readyz")).json() == {"status": "ready"}


async def test_an_unexpected_failure_is_500_without_its_text(service: FakeService) -> None:
    name = await upload(service)
    service.backend.failure = RuntimeError("secret")
    answer = await service.http.post("/v1/segment", json={"image": name, "prompts": [RED]})
    assert problem(answer)["code"] == "internal"
    assert "secret" not in answer.text


async def test_a_request_that_takes_too_long_is_504(tmp_path: Path) -> None:
    async with fake_service(tmp_path, backend=FakeBackend(seconds=5), request_seconds=0.2) as service:
        answer = await service.http.post("/v1/images", content=picture())
        assert problem(answer)["code"] == "deadline"


async def test_a_full_queue_is_503_at_once(tmp_path: Path) -> None:
    async with fake_service(tmp_path, max_queue=4) as service:
        name = await upload(service)
        service.backend.seconds = 0.3
        calls = [
            service.http.post("/v1/segment", json={"image": name, "prompts": [RED] * 4, "classify": None})
            for _ in range(12)
        ]
        answers = await asyncio.gather(*calls)
        refused = [answer for answer in answers if answer.status_code == 503]
        assert refused
        assert {problem(answer)["code"] for answer in refused} == {"overloaded"}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert any(answer.status_code == 200 for answer in answers)


async def test_request_ids_go_in_and_out(service: FakeService) -> None:
    given = await service.http.get("/healthz", headers={"x-request-id": "abc-1"})
    assert given.headers["x-request-id"] == "abc-1"
    odd = await service.http.get("/healthz", headers={"x-request-id": "a b{}"})
    assert odd.headers["x-request-id"] not in {"a b{}", ""}


async def test_server_timing_names_the_stages(service: FakeService) -> None:
    answer = await service.http.post("/v1/segment", json={"image": await upload(service), "prompts": [RED]})
    assert "decode;dur=" in answer.headers["server-timing"]


async def test_own_vocabularies_are_kept_used_and_forgotten(service: FakeService) -> None:
    path = "/v1/vocabularies/colours"
    assert (await service.http.put(path, json={"names": ["green", "red", "green"]})).status_code == 204
    assert (await service.http.get(path)).json()["names"] == ["green", "red"]
    assert "colours" in (await service.http.get("/v1/vocabularies")).json()["vocabularies"]
    body = {"image": await upload(service), "prompts": [RED], "classify": {"vocabulary": "colours"}}
    assert (await ask(service, body))["results"][0]["classes"][0]["name"] == "red"
    assert (await service.http.delete(path)).status_code == 204
    assert problem(await service.http.get(path))["code"] == "vocabulary-unknown"
    assert problem(await service.http.put("/v1/vocabularies/common", json={"names": ["x"]}))["status"] == 422


async def test_everything_finds_each_object_once(service: FakeService) -> None:
    body = {"image": await upload(service), "grid": 8}
    results = (await ask(service, body, "/v1/segment/everything"))["results"]
    assert sorted(result["classes"][0]["name"] for result in results) == ["blue", "green", "red"]


async def test_everything_streams_lines(service: FakeService) -> None:
    body = {"image": await upload(service), "grid": 8, "classify": None}
    headers = {"accept": "application/x-ndjson"}
    answer = await service.http.post("/v1/segment/everything", json=body, headers=headers)
    head, *objects, last = (json.loads(line) for line in answer.text.splitlines())
    assert head["image"]["width"] == 64
    assert len(objects) == 3
    assert last == {"done": True, "objects": 3}


async def test_models_and_openapi_describe_the_service(service: FakeService) -> None:
    (card,) = (await service.http.get("/v1/models")).json()["models"]
    assert card["name"] == "fake"
    document = (await service.http.get("/openapi.json")).json()
    assert set(document["paths"]) >= {"/v1/images", "/v1/segment", "/v1/segment/everything", "/v1/vocabularies/{name}"}
    assert "requestBody" in document["paths"]["/v1/segment"]["post"]


async def test_metrics_count_requests_by_code(service: FakeService) -> None:
    await ask(service, {"image": await upload(service), "prompts": [RED]})
    await refusal(service, NO_PROMPTS | {"image": digest(picture())})
    text = (await service.http.get("/metrics")).text
    assert 'ovsam_requests_total{code="ok",route="/v1/segment"} 1.0' in text
    assert 'ovsam_requests_total{code="invalid-prompt",route="/v1/segment"} 1.0' in text
