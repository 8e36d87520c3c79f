"""CVAT's native functions and the Nuclio function, over the real app on a real port."""

import asyncio
import base64
import importlib.util
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cvat_sdk.auto_annotation as cvataa
import httpx
import numpy as np
import pytest
import uvicorn
import yaml
from cvat_sdk.masks import decode_mask
from PIL import Image

from service.core.types import BoolArray
from service.transports.cvat_functions import INTERACTOR, describe_functions
from tests.http_service import picture
from tests.labelling_service import labelling_service

CVAT = Path(__file__).parents[2] / "deploy" / "cvat"


@dataclass
class Running:
    """The fake service on a port."""

    url: str
    calls: Counter[str]


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with labelling_service(tmp_path) as service:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = uvicorn.Server(uvicorn.Config(service.fake.app, lifespan="off", log_level="warning", ws="none"))
            serving = asyncio.create_task(server.serve([listener]))
            yield Running(f"http://127.0.0.1:{listener.getsockname()[1]}", service.fake.backend.calls)
            server.should_exit = True
            await serving


@pytest.fixture
def frame(tmp_path: Path) -> Image.Image:
    path = tmp_path / "frame.png"
    path.write_bytes(picture())
    return Image.open(path)


def load(path: Path) -> ModuleType:
    """A file as cvat-cli loads it."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def native(running: Running, **parameters: str) -> Any:
    return load(CVAT / "native.py").create(url=running.url, **parameters)


def prompts(*pos: tuple[float, float], box: Any = None) -> Any:
    return SimpleNamespace(pos_points=list(pos), neg_points=[], bounding_box=box)


def context(*, conf: float | None = None, poly: bool = False) -> Any:
    return SimpleNamespace(conf_threshold=conf, conv_mask_to_poly=poly, frame_name="frame.png")


def iou(points: list[float], box: tuple[int, int, int, int]) -> float:
    first: BoolArray = decode_mask([int(side) for side in points], image_width=64, image_height=48)
    second = np.zeros((48, 64), np.bool_)
    second[box[1] : box[3], box[0] : box[2]] = True
    return float((first & second).sum() / (first | second).sum())


async def test_the_native_interactor_uploads_once_and_then_sends_prompts(running: Running, frame: Image.Image) -> None:
    function = native(running)
    assert isinstance(function.spec, cvataa.InteractionFunctionSpec)
    kept = await asyncio.to_thread(function.preprocess_image, context(), frame)
    (click,) = await asyncio.to_thread(function.detect, context(), kept, prompts((12.0, 12.0)))
    box = ((40.0, 16.0), (56.0, 32.0))
    (boxed,) = await asyncio.to_thread(function.detect, context(), kept, prompts(box=box))
    assert (click.type, boxed.type) == ("mask", "mask")
    assert iou(click.points, (8, 8, 24, 24)) > 0.9
    assert iou(boxed.points, (40, 16, 56, 32)) > 0.9
    assert running.calls["image_encoder"] == 1


async def test_the_native_interactor_uploads_again_what_the_service_has_dropped(
    running: Running, frame: Image.Image
) -> None:
    function = native(running)
    kept = await asyncio.to_thread(function.preprocess_image, context(), frame)
    async with httpx.AsyncClient() as http:
        await http.delete(f"{running.url}/v1/images/{kept.digest}")
    assert len(await asyncio.to_thread(function.detect, context(), kept, prompts((12.0, 12.0)))) == 1


async def test_the_native_detector_finds_the_tasks_own_labels(running: Running, frame: Image.Image) -> None:
    function = await asyncio.to_thread(native, running, labels="red, blue")
    assert [label.name for label in function.spec.labels] == ["red", "blue"]
    shapes = await asyncio.to_thread(function.detect, context(), frame)
    assert sorted(shape.label_id for shape in shapes) == [0, 1]
    (red,) = [shape for shape in shapes if shape.label_id == 0]
    assert red.type.value == "mask"
    assert iou(red.points, (8, 8, 24, 24)) > 0.9


async def test_the_native_detector_gives_polygons_when_asked_to(running: Running, frame: Image.Image) -> None:
    function = await asyncio.to_thread(native, running, labels="red")
    shapes = await asyncio.to_thread(function.detect, context(poly=True), frame)
    assert [shape.type.value for shape in shapes] == ["polygon"]


def nuclio_call(url: str, body: Any) -> SimpleNamespace:
    module = load(CVAT / "nuclio" / "main.py")
    nuclio = SimpleNamespace(user_data=SimpleNamespace(), Response=SimpleNamespace)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OVSAM_URL", url)
        environment.setenv("OVSAM_KEY", "secret")
        module.init_context(nuclio)
    assert nuclio.user_data.headers["x-api-key"] == "secret"
    reply: SimpleNamespace = module.handler(nuclio, SimpleNamespace(body=body))
    return reply


async def test_the_nuclio_function_hands_calls_and_failures_on(running: Running) -> None:
    url = f"{running.url}/integrations/cvat"
    body = {"image": base64.b64encode(picture()).decode(), "pos_points": [[12, 12]], "neg_points": [], "obj_bbox": None}
    for sent in (body, json.dumps(body).encode()):
        reply = await asyncio.to_thread(nuclio_call, url, sent)
        assert reply.status_code == 200
        assert iou(json.loads(reply.body)["shapes"][0]["points"], (8, 8, 24, 24)) > 0.9
    refused = await asyncio.to_thread(nuclio_call, url, {"image": ""})
    assert refused.status_code == 400
    assert json.loads(refused.body)["code"] == "malformed"


def test_the_nuclio_function_is_described_as_the_dashboard_describes_it() -> None:
    written = yaml.safe_load((CVAT / "nuclio" / "function.yaml").read_text())
    shown = describe_functions([], port=80)[INTERACTOR]
    assert written["metadata"]["name"] == shown["metadata"]["name"]
    assert written["metadata"]["annotations"] == shown["metadata"]["annotations"]
    assert written["spec"]["description"] == shown["spec"]["description"]
