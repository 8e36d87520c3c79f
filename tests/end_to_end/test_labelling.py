"""The bundled model gives the same mask and name for a click over REST, Label Studio and CVAT, and encodes once."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from cvat_sdk.masks import decode_mask
from pycocotools import mask as coco

from service.app import build_app
from service.settings import Settings
from tests.brush_decoder import decode_brush
from tests.http_service import metric

PICTURE = Path(__file__).parents[2] / "service" / "transports" / "web" / "samples" / "cat.jpg"
X, Y = 220, 150  # a pixel of the cat
NAMES = ["cat", "cup", "rocket"]
CONFIG = f"""<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">
  {"".join(f'<Label value="{name}"/>' for name in NAMES)}</BrushLabels>
  <KeyPointLabels name="kp" toName="image" smart="true"><Label value="auto"/></KeyPointLabels></View>"""


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = build_app(Settings(cache_dir=tmp_path, threads=1, request_seconds=300))
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield http


async def test_one_click_over_rest_label_studio_and_cvat(http: httpx.AsyncClient) -> None:
    content = PICTURE.read_bytes()
    image = base64.b64encode(content).decode()

    prompts = [{"points": [{"x": X, "y": Y}]}]
    request = {"image": {"base64": image}, "prompts": prompts, "classify": {"names": NAMES}}
    rest = (await http.post("/v1/segment", json=request)).json()["results"][0]
    height, width = rest["mask"]["size"]
    expected = coco.decode({"size": [height, width], "counts": rest["mask"]["counts"].encode()}) == 1

    value = {"x": 100 * X / width, "y": 100 * Y / height, "keypointlabels": ["auto"]}
    region = {"from_name": "kp", "to_name": "image", "type": "keypointlabels", "is_positive": True, "value": value}
    task = {"id": 1, "data": {"image": f"data:image/jpeg;base64,{image}"}}
    params = {"context": {"result": [region]}}
    body = {"tasks": [task], "project": "1", "label_config": CONFIG, "params": params}
    answer = (await http.post("/integrations/label-studio/predict", json=body)).json()
    studio = answer["results"][0]["result"][0]

    asked = {"image": image, "pos_points": [[X, Y]], "neg_points": [], "obj_bbox": None}
    cvat = (await http.post("/integrations/cvat?reply=shapes", json=asked)).json()["shapes"][0]

    np.testing.assert_array_equal(decode_brush(studio["value"]["rle"], width=width, height=height), expected)
    np.testing.assert_array_equal(decode_mask(cvat["points"], image_width=width, image_height=height), expected)
    assert studio["value"]["brushlabels"] == [rest["classes"][0]["name"]] == ["cat"]
    assert studio["score"] == pytest.approx(rest["classes"][0]["score"], abs=1e-3)
    counted = (await http.get("/metrics")).text
    assert metric(counted, "ovsam_cache_lookups_total", result="miss") == 1
    assert metric(counted, "ovsam_cache_lookups_total", result="memory") == 2
