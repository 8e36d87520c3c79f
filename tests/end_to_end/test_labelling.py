"""The bundled model gives one mask and name over REST, gRPC, Label Studio and CVAT, and encodes once for them all.

The page is asked the same in web_page/test_same_answers.py.
"""

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from cvat_sdk.masks import decode_mask
from pycocotools import mask as coco

from service.app import build_app
from service.core.types import BoolArray
from service.settings import Settings
from service.transports import ovsam_pb2 as pb
from service.transports import ovsam_pb2_grpc
from service.transports.grpc_server import serve_grpc
from tests.brush_decoder import decode_brush
from tests.end_to_end.labelling_cases import CASES, HEIGHT, PICTURE, WIDTH, Case
from tests.http_service import metric

CONTENT = PICTURE.read_bytes()
IMAGE = base64.b64encode(CONTENT).decode()
NAMES = ["cat", "cup", "rocket"]
CONFIG = f"""<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">
  {"".join(f'<Label value="{name}"/>' for name in NAMES)}</BrushLabels>
  <KeyPointLabels name="kp" toName="image" smart="true"><Label value="auto"/></KeyPointLabels>
  <RectangleLabels name="box" toName="image" smart="true"><Label value="auto"/></RectangleLabels></View>"""
Answer = tuple[BoolArray, list[tuple[str, float]]]
"""The mask, and names with their probabilities, best first."""


@dataclass
class Interfaces:
    """One service, asked over HTTP and over gRPC."""

    http: httpx.AsyncClient
    stub: "ovsam_pb2_grpc.SegmentationAsyncStub"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Interfaces]:
    app = build_app(Settings(cache_dir=tmp_path, threads=1, request_seconds=300))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as http,
        serve_grpc(app.state.services, address="127.0.0.1:0") as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield Interfaces(http, ovsam_pb2_grpc.SegmentationStub(channel))


async def over_rest(service: Interfaces, case: Case) -> Answer:
    points = [{"x": x, "y": y, "label": label} for x, y, label in case.points]
    body = {"image": {"base64": IMAGE}, "prompts": [{"points": points, "box": case.box}], "classify": {"names": NAMES}}
    (found,) = (await service.http.post("/v1/segment", json=body)).json()["results"]
    return decode_rle(found["mask"]["counts"].encode()), [(c["name"], c["score"]) for c in found["classes"]]


async def over_grpc(service: Interfaces, case: Case) -> Answer:
    prompt = pb.Prompt()
    for x, y, label in case.points:
        prompt.points.append(pb.Point(x=x, y=y, label=pb.PointLabel.ValueType(2 - label)))
    if case.box:
        prompt.box.CopyFrom(pb.Box(**dict(zip(("x1", "y1", "x2", "y2"), case.box, strict=True))))
    request = pb.SegmentRequest(image=pb.Image(content=CONTENT), prompts=[prompt], classify=pb.Classify(names=NAMES))
    (found,) = (await service.stub.Segment(request)).results
    return decode_rle(found.mask.counts), [(c.name, c.score) for c in found.classes]


async def over_label_studio(service: Interfaces, case: Case) -> Answer:
    drawn = [
        region("kp", "keypointlabels", {"x": 100 * x / WIDTH, "y": 100 * y / HEIGHT}) | {"is_positive": label == 1}
        for x, y, label in case.points
    ]
    if case.box:
        x1, y1, x2, y2 = case.box
        sides = {"width": 100 * (x2 - x1) / WIDTH, "height": 100 * (y2 - y1) / HEIGHT}
        drawn.append(region("box", "rectanglelabels", {"x": 100 * x1 / WIDTH, "y": 100 * y1 / HEIGHT, **sides}))
    task = {"id": 1, "data": {"image": f"data:image/jpeg;base64,{IMAGE}"}}
    body = {"tasks": [task], "project": "1", "label_config": CONFIG, "params": {"context": {"result": drawn}}}
    answer = (await service.http.post("/integrations/label-studio/predict", json=body)).json()
    (found,) = answer["results"][0]["result"]
    mask = decode_brush(found["value"]["rle"], width=WIDTH, height=HEIGHT)
    return mask, [(found["value"]["brushlabels"][0], found["score"])]


async def over_cvat(service: Interfaces, case: Case) -> Answer:
    """CVAT's interactor answers with the mask alone: there the person has chosen the label."""
    asked: dict[str, Any] = {"image": IMAGE, "obj_bbox": [case.box[:2], case.box[2:]] if case.box else None}
    for key, wanted in (("pos_points", 1), ("neg_points", 0)):
        asked[key] = [[x, y] for x, y, label in case.points if label == wanted]
    (shape,) = (await service.http.post("/integrations/cvat?reply=shapes", json=asked)).json()["shapes"]
    return decode_mask(shape["points"], image_width=WIDTH, image_height=HEIGHT) == 1, []


def region(name: str, kind: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"from_name": name, "to_name": "image", "type": kind, "value": {**value, kind: ["auto"]}}


def decode_rle(counts: bytes) -> BoolArray:
    mask: BoolArray = coco.decode({"size": [HEIGHT, WIDTH], "counts": counts}) == 1
    return mask


async def test_every_interface_gives_the_same_mask_and_names(service: Interfaces) -> None:
    for case in CASES.values():
        mask, names = await over_rest(service, case)
        assert names[0][0] == "cat"
        assert mask.any()
        for ask in (over_grpc, over_label_studio, over_cvat):
            found, found_names = await ask(service, case)
            np.testing.assert_array_equal(found, mask, err_msg=f"{ask.__name__} {case}")
            assert [name for name, _ in found_names] == [name for name, _ in names][: len(found_names)]
            assert [score for _, score in found_names] == pytest.approx(
                [score for _, score in names][: len(found_names)], abs=1e-3
            )
    counted = (await service.http.get("/metrics")).text
    assert metric(counted, "ovsam_cache_lookups_total", result="miss") == 1
    assert metric(counted, "ovsam_cache_lookups_total", result="memory") == 4 * len(CASES) - 1
