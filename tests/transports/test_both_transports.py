"""One table of requests, asked over REST and over gRPC: equal answers, equal refusals."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from service.core.errors import BackendUnavailable
from service.transports import ovsam_pb2 as pb
from service.transports.status import STATUSES
from tests.grpc_service import BothTransports, both_transports
from tests.http_service import picture

RED = {"id": "r", "points": [{"x": 12, "y": 12}]}
GREEN = {"id": "g", "points": [{"x": 45.5, "y": 20.25}, {"x": 1, "y": 1, "label": 0}]}
BOX = {"id": "b", "box": [8, 8, 24, 24]}
OUTSIDE = {"id": "o", "points": [{"x": 900, "y": 12}]}

ANSWERED: dict[str, dict[str, Any]] = {
    "a click": {"prompts": [RED]},
    "a box": {"prompts": [BOX]},
    "a click in a box": {"prompts": [RED | BOX]},
    "several objects": {"prompts": [RED, GREEN, BOX]},
    "no ids": {"prompts": [{"points": [{"x": 12, "y": 12}]}, {"box": [40, 16, 56, 32]}]},
    "a bad prompt among good ones": {"prompts": [RED, OUTSIDE, GREEN]},
    "own words": {"prompts": [RED], "classify": {"names": ["green", "red"]}},
    "a vocabulary": {"prompts": [GREEN], "classify": {"vocabulary": "common", "top_k": 2}},
    "only likely names": {"prompts": [RED], "classify": {"min_score": 0.5}},
    "masks only": {"prompts": [RED], "classify": None},
    "names only": {"prompts": [RED], "output": {"mask": "none"}},
    "a preview": {"prompts": [RED], "output": {"mask_ref": False}},
}
JSON = {"content-type": "application/json"}
CALL = {"prompts": [RED]}
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "an unknown image": ("image-unknown", CALL | {"image": "sha256:" + "0" * 64}),
    "a digest that is none": ("malformed", CALL | {"image": "sha256:0"}),
    "no image": ("malformed", CALL | {"image": None}),
    "bytes that are no image": ("not-an-image", CALL | {"content": b"text"}),
    "too many bytes": ("too-large", CALL | {"content": b"0" * (2**20 + 1)}),
    "too many pixels": ("too-large", CALL | {"content": picture(400, 300)}),
    "no prompt": ("invalid-prompt", {"prompts": []}),
    "an empty prompt": ("invalid-prompt", {"prompts": [{"id": "a"}]}),
    "a click outside": ("invalid-prompt", {"prompts": [OUTSIDE]}),
    "a click nowhere": ("invalid-prompt", {"prompts": [{"points": [{"x": float("nan"), "y": 1}]}]}),
    "an inverted box": ("invalid-prompt", {"prompts": [{"box": [30, 8, 10, 24]}]}),
    "too many points": ("invalid-prompt", {"prompts": [{"points": [{"x": 1, "y": 1}] * 9}]}),
    "too many prompts": ("invalid-prompt", {"prompts": [RED] * 5}),
    "a mask_ref never given": ("invalid-prompt", {"prompts": [RED | {"mask_ref": "00" + "0" * 16}]}),
    "an id that is too long": ("malformed", {"prompts": [RED | {"id": "a" * 201}]}),
    "an unknown vocabulary": ("vocabulary-unknown", CALL | {"classify": {"vocabulary": "none"}}),
    "a vocabulary that is a path": ("malformed", CALL | {"classify": {"vocabulary": "../common"}}),
    "words and a vocabulary": ("malformed", CALL | {"classify": {"vocabulary": "common", "names": ["red"]}}),
    "an empty word": ("invalid-vocabulary", CALL | {"classify": {"names": ["red", " "]}}),
    "a probability over one": ("malformed", CALL | {"classify": {"min_score": 1.5}}),
    "no names wanted": ("malformed", CALL | {"classify": {"top_k": 0}}),
}


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[BothTransports]:
    async with both_transports(tmp_path, max_prompts=4, max_points=8, max_body_mib=1, max_megapixels=0.1) as running:
        yield running


def grpc_request(body: dict[str, Any]) -> pb.SegmentRequest:
    """The message that asks for the same as a REST body; `content` is an image sent along."""
    message = pb.SegmentRequest(prompts=[grpc_prompt(prompt) for prompt in body["prompts"]])
    if body.get("image"):
        message.image.digest = body["image"]
    if "content" in body:
        message.image.content = body["content"]
    if body.get("output", {}).get("mask") == "none":
        message.omit_masks = True
    if body.get("output", {}).get("mask_ref") is False:
        message.omit_mask_refs = True
    if "classify" in body and body["classify"] is None:
        message.masks_only = True
    elif "classify" in body:
        message.classify.CopyFrom(pb.Classify(**body["classify"]))
    return message


def grpc_prompt(prompt: dict[str, Any]) -> pb.Prompt:
    message = pb.Prompt(id=prompt.get("id"), mask_ref=prompt.get("mask_ref"))
    for point in prompt.get("points", []):
        label = pb.POINT_LABEL_FOREGROUND if point.get("label", 1) else pb.POINT_LABEL_BACKGROUND
        message.points.append(pb.Point(x=point["x"], y=point["y"], label=label))
    if "box" in prompt:
        message.box.CopyFrom(pb.Box(**dict(zip(("x1", "y1", "x2", "y2"), prompt["box"], strict=True))))
    return message


def rest_body(body: dict[str, Any]) -> dict[str, Any]:
    fields = {name: value for name, value in body.items() if name != "content"}
    if "content" in body:
        fields["image"] = {"base64": base64.b64encode(body["content"]).decode()}
    return fields


def rest_results(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [{name: value for name, value in result.items() if name != "mask_ref"} for result in answer["results"]]


def grpc_results(reply: pb.SegmentReply, *, masks_only: bool) -> list[dict[str, Any]]:
    """The results in REST's form."""
    results = []
    for result in reply.results:
        box = [result.box.x1, result.box.y1, result.box.x2, result.box.y2]
        size = [result.mask.height, result.mask.width]
        mask = {"format": "rle", "size": size, "counts": result.mask.counts.decode()}
        failed = result.HasField("error")
        error = {"code": result.error.code, "detail": result.error.detail, "pointer": result.error.pointer or None}
        results.append(
            {
                "id": result.id,
                "mask": mask if result.HasField("mask") else None,
                "bbox": box if result.HasField("box") else None,
                "area": result.area,
                "stability": result.stability,
                "classes": None
                if masks_only or failed
                else [{"name": found.name, "score": found.score} for found in result.classes],
                "error": error if failed else None,
            }
        )
    return results


async def put(both: BothTransports, content: bytes) -> pb.PutImageResponse:
    return await both.stub.PutImage(iter([pb.ImageChunk(content=content[:100]), pb.ImageChunk(content=content[100:])]))


@pytest.mark.parametrize("case", ANSWERED)
async def test_both_transports_give_the_same_masks_and_names(both: BothTransports, case: str) -> None:
    digest = (await put(both, picture())).digest
    body = {"image": digest} | ANSWERED[case]
    rest = (await both.rest.http.post("/v1/segment", json=rest_body(body))).json()
    reply = await both.stub.Segment(grpc_request(body))
    masks_only = ANSWERED[case].get("classify", 0) is None
    assert grpc_results(reply, masks_only=masks_only) == rest_results(rest)
    assert {"digest": reply.digest, "width": reply.width, "height": reply.height} == rest["image"]
    assert {"name": reply.model.name, "revision": reply.model.revision} == rest["model"]
    assert reply.cache == rest["cache"] == "memory"
    assert reply.timing_ms.keys() == rest["timing_ms"].keys()
    kept = ANSWERED[case].get("output", {}).get("mask_ref", True)
    for result, message in zip(rest["results"], reply.results, strict=True):
        assert bool(result["mask_ref"]) == bool(message.mask_ref) == (kept and not result["error"])


@pytest.mark.parametrize("case", REFUSED)
async def test_both_transports_refuse_the_same_with_the_same_code(both: BothTransports, case: str) -> None:
    code, body = REFUSED[case]
    if not body.keys() & {"image", "content"}:
        body = {"image": (await put(both, picture())).digest} | body
    answer = await both.rest.http.post("/v1/segment", content=json.dumps(rest_body(body)), headers=JSON)
    problem = answer.json()
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await both.stub.Segment(grpc_request(body))
    trailers = dict(failure.value.trailing_metadata() or ())
    assert trailers["ovsam-code"] == problem["code"] == code
    statuses = {status.code: status for status in STATUSES.values()}
    assert failure.value.code() is statuses[code].grpc
    assert answer.status_code == statuses[code].http
    if code != "malformed" and case != "too many bytes":  # else each wire has words of its own
        assert failure.value.details() == problem["detail"]
        assert trailers.get("ovsam-pointer") == next((item["pointer"] for item in problem["errors"]), None)


async def test_a_failing_backend_is_unavailable_on_both_and_says_when_to_come_back(both: BothTransports) -> None:
    both.backend.failure = BackendUnavailable("the engine is down", retry_after=2)
    answer = await both.rest.http.post("/v1/images", content=picture())
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await put(both, picture())
    trailers = dict(failure.value.trailing_metadata() or ())
    assert (answer.status_code, failure.value.code()) == (503, grpc.StatusCode.UNAVAILABLE)
    assert answer.json()["code"] == trailers["ovsam-code"] == "backend-unavailable"
    assert answer.headers["retry-after"] == "2"
    assert trailers["grpc-retry-pushback-ms"] == "2000"


async def test_an_unforeseen_failure_tells_nothing_but_its_id(both: BothTransports) -> None:
    both.backend.failure = RuntimeError("secret")
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await both.stub.Segment(grpc_request(CALL | {"content": picture()}), metadata=(("x-request-id", "mine-1"),))
    trailers = dict(failure.value.trailing_metadata() or ())
    assert failure.value.code() is grpc.StatusCode.INTERNAL
    assert (trailers["ovsam-code"], trailers["x-request-id"]) == ("internal", "mine-1")
    assert "secret" not in str(failure.value.details())


async def test_an_image_put_on_one_transport_is_known_on_the_other_and_encoded_once(both: BothTransports) -> None:
    digest = (await put(both, picture())).digest
    assert (await both.rest.http.head(f"/v1/images/{digest}")).status_code == 200
    rest = (await both.rest.http.post("/v1/segment", json={"image": digest} | CALL)).json()
    refined = CALL | {"image": digest, "prompts": [RED | {"mask_ref": rest["results"][0]["mask_ref"]}]}
    assert not (await both.stub.Segment(grpc_request(refined))).results[0].HasField("error")
    assert both.backend.calls["image_encoder"] == 1


async def test_vocabularies_are_listed_alike(both: BothTransports) -> None:
    await both.rest.http.put("/v1/vocabularies/mine", json={"names": ["red"]})
    listed = await both.stub.ListVocabularies(pb.ListVocabulariesRequest())
    rest = (await both.rest.http.get("/v1/vocabularies")).json()
    assert {"default": listed.default_vocabulary, "vocabularies": list(listed.vocabularies)} == rest


async def test_requests_of_both_transports_are_counted_by_code(both: BothTransports) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await both.stub.Segment(grpc_request(CALL | {"image": "sha256:" + "0" * 64}))
    await put(both, picture())
    route = "/ovsam.v1.Segmentation/"
    assert both.rest.metric("ovsam_requests_total", route=f"{route}Segment", code="image-unknown") == 1
    assert both.rest.metric("ovsam_requests_total", route=f"{route}PutImage", code="ok") == 1
