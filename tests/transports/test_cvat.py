"""CVAT's contract over the fake network, its masks read by cvat-sdk's own decoder."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from cvat_sdk.masks import decode_mask, encode_mask

from service.core.types import BoolArray
from service.transports.cvat_masks import crop_runs, frame_json
from tests.http_service import FakeService, picture
from tests.labelling_service import labelling_service

ROOT = "/integrations/cvat"
IMAGE = base64.b64encode(picture()).decode()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[FakeService]:
    async with labelling_service(tmp_path) as running:
        yield running.fake


async def call(service: FakeService, path: str = "", **body: Any) -> httpx.Response:
    return await service.http.post(ROOT + path, json={"image": IMAGE, **body})


async def invoke(service: FakeService, name: str, **body: Any) -> httpx.Response:
    """As CVAT calls a function through Nuclio's dashboard."""
    headers = {"x-nuclio-function-name": name, "x-nuclio-path": "/", "x-nuclio-invoke-via": "domain-name"}
    path = f"{ROOT}/api/function_invocations"
    return await service.http.post(path, json={"image": IMAGE, **body}, headers=headers)


def square(x1: int, y1: int, x2: int, y2: int) -> BoolArray:
    mask = np.zeros((48, 64), np.bool_)
    mask[y1:y2, x1:x2] = True
    return mask


def iou(first: BoolArray, second: BoolArray) -> float:
    return float((first & second).sum() / (first | second).sum())


def both_masks(reply: httpx.Response) -> BoolArray:
    """The mask of an interactor's reply, after checking that both generations of CVAT read the same."""
    assert reply.status_code == 200, reply.text
    fields = reply.json()
    frame = np.array(fields["mask"])
    assert set(np.unique(frame)) <= {0, 1}
    (shape,) = fields["shapes"]
    assert (shape["type"], shape["attributes"]) == ("mask", [])
    mask: BoolArray = decode_mask(shape["points"], image_width=64, image_height=48)
    np.testing.assert_array_equal(frame, mask)
    return mask


RED, GREEN = square(8, 8, 24, 24), square(40, 16, 56, 32)


@pytest.mark.parametrize("path", ["", "/"])
@pytest.mark.parametrize("bbox", [{}, {"obj_bbox": None}, {"obj_bbox": []}])
async def test_a_click(service: FakeService, path: str, bbox: dict[str, Any]) -> None:
    reply = await call(service, path, pos_points=[[12.5, 12.5]], neg_points=[], **bbox)
    assert iou(both_masks(reply), RED) > 0.9


async def test_a_box_whose_corners_come_in_any_order(service: FakeService) -> None:
    reply = await call(service, pos_points=[], neg_points=[], obj_bbox=[[56, 32], [40, 16]])
    assert iou(both_masks(reply), GREEN) > 0.9


async def test_a_caller_may_ask_for_one_form(service: FakeService) -> None:
    mask = await call(service, "?reply=mask", pos_points=[[12, 12]])
    shapes = await call(service, "?reply=shapes", pos_points=[[12, 12]])
    assert (mask.json().keys(), shapes.json().keys()) == ({"mask"}, {"shapes"})
    assert len(shapes.content) < len(mask.content) / 10


async def test_the_image_sent_again_is_not_encoded_again(service: FakeService) -> None:
    for x in (12, 45, 13):
        await call(service, pos_points=[[x, 20]])
    assert service.backend.calls["image_encoder"] == 1
    assert service.metric("ovsam_cache_lookups_total", result="memory") == 2
    assert service.backend.calls["region_encoder"] == 0  # nobody reads a name here


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"image":"","pos_points":[[1,1]]}',
        b'{"image":"?","pos_points":[[1,1]]}',
        b'{"image":"AAAA","pos_points":[[1,1]]}',
        json.dumps({"image": IMAGE}).encode(),
        json.dumps({"image": IMAGE, "pos_points": [[1]]}).encode(),
        json.dumps({"image": IMAGE, "pos_points": [[1000, 1]]}).encode(),
        json.dumps({"image": IMAGE, "obj_bbox": [[1, 1]]}).encode(),
        json.dumps({"image": IMAGE, "pos_points": "all"}).encode(),
    ],
)
async def test_a_malformed_call_is_refused(service: FakeService, body: bytes) -> None:
    reply = await service.http.post(ROOT, content=body)
    assert 400 <= reply.status_code < 500
    assert reply.headers["content-type"] == "application/problem+json"


async def test_the_dashboard_lists_an_interactor_and_a_detector(service: FakeService) -> None:
    listed = (await service.http.get(f"{ROOT}/api/functions")).json()
    kinds = {name: item["metadata"]["annotations"]["type"] for name, item in listed.items()}
    assert sorted(kinds.values()) == ["detector", "interactor"]
    for name, item in listed.items():
        assert (await service.http.get(f"{ROOT}/api/functions/{name}")).json() == item
        assert item["metadata"]["name"] == name
        assert item["spec"]["description"]
        assert item["status"] == {"state": "ready", "httpPort": 80}
        assert all(isinstance(value, str) for value in item["metadata"]["annotations"].values())


async def test_the_interactors_flags_are_true_or_not_there(service: FakeService) -> None:
    listed = (await service.http.get(f"{ROOT}/api/functions/ovsam-interactor")).json()
    notes = listed["metadata"]["annotations"]
    assert (int(notes["version"]), int(notes["min_pos_points"]), int(notes["min_neg_points"])) == (2, 1, 0)
    assert notes["startswith_box_optional"] == "true"
    assert "false" not in notes.values()
    assert json.loads(notes["spec"]) == []


async def test_the_detectors_labels_are_the_default_vocabulary(service: FakeService) -> None:
    listed = (await service.http.get(f"{ROOT}/api/functions/ovsam-detector")).json()
    labels = json.loads(listed["metadata"]["annotations"]["spec"])
    assert [label["name"] for label in labels] == ["red", "green", "blue"]
    assert {label["type"] for label in labels} == {"mask"}


async def test_the_interactor_through_the_dashboard(service: FakeService) -> None:
    reply = await invoke(service, "ovsam-interactor", pos_points=[[12, 12]], neg_points=[], obj_bbox=None)
    assert iou(both_masks(reply), RED) > 0.9


async def test_the_detector_through_the_dashboard(service: FakeService) -> None:
    reply = await invoke(service, "ovsam-detector", threshold=0.6)
    found = {item["label"]: item for item in reply.json()}
    assert found.keys() == {"red", "green", "blue"}
    assert float(found["red"]["confidence"]) > 0.6
    *flat, left, top, right, bottom = found["red"]["mask"]
    mask = np.zeros((48, 64), np.bool_)
    mask[top : bottom + 1, left : right + 1] = np.reshape(flat, (bottom - top + 1, right - left + 1))
    assert iou(mask, RED) > 0.9
    outline = np.reshape(found["red"]["points"], (-1, 2))
    np.testing.assert_allclose([*outline.min(axis=0), *outline.max(axis=0)], [8, 8, 24, 24], atol=1.5)


async def test_the_threshold_leaves_out_what_is_less_sure(service: FakeService) -> None:
    assert (await call(service, "/detector", threshold=1.1)).json() == []


async def test_an_unknown_function_is_not_found(service: FakeService) -> None:
    assert (await service.http.get(f"{ROOT}/api/functions/other")).status_code == 404
    assert (await invoke(service, "other")).status_code == 404


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 1.0])
def test_runs_are_those_of_the_sdk(share: float) -> None:
    mask = np.random.default_rng(3).random((37, 51)) < share
    assert crop_runs(mask) == encode_mask(mask)
    np.testing.assert_array_equal(decode_mask(crop_runs(mask), image_width=51, image_height=37), mask)


def test_the_frame_is_written_as_json() -> None:
    mask = np.random.default_rng(3).random((5, 7)) < 0.5
    assert json.loads(frame_json(mask)) == mask.astype(int).tolist()
