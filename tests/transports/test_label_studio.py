"""Label Studio's ML backend contract over the fake network: prompts, batches, labels, addresses, tokens."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.core.types import BoolArray
from tests.brush_decoder import decode_brush
from tests.http_service import picture
from tests.labelling_service import LabellingService, labelling_service

ROOT = "/integrations/label-studio"
STUDIO = "http://studio:8080"
PROMPTS = """
  <KeyPointLabels name="kp" toName="image" smart="true"><Label value="auto" smart="true"/></KeyPointLabels>
  <RectangleLabels name="box" toName="image" smart="true"><Label value="auto"/></RectangleLabels>"""
LABELS = '<Label value="red"/><Label value="green"/>'
BRUSH = f'<BrushLabels name="brush" toName="image">{LABELS}</BrushLabels>'


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[LabellingService]:
    async with labelling_service(tmp_path) as running:
        yield running


def view(controls: str = BRUSH + PROMPTS) -> str:
    return f'<View><Image name="image" value="$image"/>{controls}</View>'


def keypoint(x: float, y: float, *, label: str = "auto", positive: bool = True) -> dict[str, Any]:
    """A click at pixel (x, y) of the picture, as Label Studio sends it."""
    value = {"x": 100 * x / 64, "y": 100 * y / 48, "width": 0.23, "keypointlabels": [label]}
    return {**region("kp", "keypointlabels", value), "is_positive": positive}


def rectangle(x1: float, y1: float, x2: float, y2: float, *, label: str = "auto") -> dict[str, Any]:
    value = {
        "x": 100 * x1 / 64,
        "y": 100 * y1 / 48,
        "width": 100 * (x2 - x1) / 64,
        "height": 100 * (y2 - y1) / 48,
        "rotation": 0,
        "rectanglelabels": [label],
    }
    return region("box", "rectanglelabels", value)


def region(name: str, kind: str, value: dict[str, Any]) -> dict[str, Any]:
    size = {"original_width": 64, "original_height": 48, "image_rotation": 0}
    return {"from_name": name, "to_name": "image", "type": kind, **size, "value": value}


async def set_up(service: LabellingService, *, token: str = "secret", config: str | None = None) -> httpx.Response:
    body = {"project": "1.17", "schema": config or view(), "hostname": STUDIO, "access_token": token}
    return await service.fake.http.post(f"{ROOT}/setup", json={**body, "extra_params": None})


async def predict(
    service: LabellingService,
    *regions: dict[str, Any],
    images: tuple[str, ...] = ("/data/upload/1/x.png",),
    config: str | None = None,
) -> httpx.Response:
    """Ask for predictions: interactively with regions, else as a batch."""
    tasks = [{"id": i, "data": {"image": image}, "annotations": [], "drafts": []} for i, image in enumerate(images)]
    context = {"result": list(regions)} if regions else None
    params = {"login": None, "password": None, "context": context}
    body = {"tasks": tasks, "project": "1.17", "label_config": config or view(), "params": params}
    return await service.fake.http.post(f"{ROOT}/predict", json=body)


async def answer(service: LabellingService, *regions: dict[str, Any], config: str | None = None) -> dict[str, Any]:
    """The one prediction of a successful call, after a set-up."""
    await set_up(service, config=config)
    reply = await predict(service, *regions, config=config)
    assert reply.status_code == 200, reply.text
    (prediction,) = reply.json()["results"]
    return dict(prediction)


def brush_mask(found: dict[str, Any]) -> BoolArray:
    assert found["value"]["format"] == "rle"
    return decode_brush(found["value"]["rle"], width=64, height=48)


def square(x1: int, y1: int, x2: int, y2: int) -> BoolArray:
    mask = np.zeros((48, 64), np.bool_)
    mask[y1:y2, x1:x2] = True
    return mask


def iou(first: BoolArray, second: BoolArray) -> float:
    return float((first & second).sum() / (first | second).sum())


@pytest.mark.parametrize("path", ["", "/", "/health"])
async def test_health(service: LabellingService, path: str) -> None:
    reply = await service.fake.http.get(ROOT + path)
    assert reply.status_code == 200
    assert reply.json() == {"status": "UP", "model_class": "fake"}


async def test_set_up_names_the_version_that_predictions_carry(service: LabellingService) -> None:
    reply = await set_up(service)
    version = reply.json()["model_version"]
    assert (await service.fake.http.get(f"{ROOT}/versions")).json() == {"versions": [version]}
    assert (await answer(service, keypoint(12, 12)))["model_version"] == version


@pytest.mark.parametrize("schema", ["", "<View/>", "<View", None])
async def test_a_project_without_a_usable_config_can_be_set_up(service: LabellingService, schema: str | None) -> None:
    body = {"project": "1.17", "schema": schema, "hostname": STUDIO, "access_token": "secret"}
    assert (await service.fake.http.post(f"{ROOT}/setup", json=body)).status_code == 200


@pytest.mark.parametrize("path", ["/webhook", "/train"])
async def test_events_are_accepted(service: LabellingService, path: str) -> None:
    reply = await service.fake.http.post(ROOT + path, json={"action": "START_TRAINING"})
    assert reply.status_code == 201


async def test_a_click_gives_a_brush_mask_named_by_the_model(service: LabellingService) -> None:
    prediction = await answer(service, keypoint(12, 12))
    (found,) = prediction["result"]
    fields = {key: found[key] for key in ("from_name", "to_name", "type", "original_width", "original_height")}
    assert fields == {
        "from_name": "brush",
        "to_name": "image",
        "type": "brushlabels",
        "original_width": 64,
        "original_height": 48,
    }
    assert found["image_rotation"] == 0
    assert found["readonly"] is False
    assert found["value"]["brushlabels"] == ["red"]
    assert iou(brush_mask(found), square(8, 8, 24, 24)) > 0.9
    assert found["score"] == pytest.approx(prediction["score"], abs=1e-4)
    assert 0.9 < prediction["score"] <= 1


async def test_a_rectangle_gives_the_object_inside(service: LabellingService) -> None:
    prediction = await answer(service, rectangle(40, 16, 56, 32))
    (found,) = prediction["result"]
    assert found["value"]["brushlabels"] == ["green"]
    assert iou(brush_mask(found), square(40, 16, 56, 32)) > 0.9


async def test_a_negative_click_is_background(service: LabellingService) -> None:
    seen = []
    run = service.fake.backend.run

    async def watch(model: Any, inputs: Any, **options: Any) -> Any:
        if model == "prompt_decoder":
            seen.append(inputs["point_labels"][0, 0].tolist())
        return await run(model, inputs, **options)

    service.fake.backend.run = watch  # type: ignore[method-assign]
    await answer(service, keypoint(12, 12), keypoint(50, 20, positive=False), rectangle(4, 4, 30, 30))
    assert sorted(seen[0]) == [0, 1, 2, 3]


async def test_a_turned_rectangle_counts_as_the_upright_one_around_it(service: LabellingService) -> None:
    turned = rectangle(56, 16, 72, 32)  # a quarter turn about the top-left corner lays it over the green square
    turned["value"]["rotation"] = 90
    prediction = await answer(service, turned)
    assert prediction["result"][0]["value"]["brushlabels"] == ["green"]


async def test_the_users_own_label_is_kept_and_nothing_is_recognised(service: LabellingService) -> None:
    config = view(BRUSH + f'<KeyPointLabels name="kp" toName="image" smart="true">{LABELS}</KeyPointLabels>')
    service.fake.backend.calls.clear()
    await set_up(service, config=config)
    reply = await predict(service, keypoint(12, 12, label="green"), config=config)
    (found,) = reply.json()["results"][0]["result"]
    assert found["value"]["brushlabels"] == ["green"]
    assert iou(brush_mask(found), square(8, 8, 24, 24)) > 0.9
    assert service.fake.backend.calls["region_encoder"] == 0


async def test_predicted_values_are_the_words_and_the_label_is_the_answer(service: LabellingService) -> None:
    labels = '<Label value="Fruit" predicted_values="red, green"/><Label value="Sky" predicted_values="blue"/>'
    config = view(f'<BrushLabels name="brush" toName="image">{labels}</BrushLabels>' + PROMPTS)
    assert (await answer(service, keypoint(12, 12), config=config))["result"][0]["value"]["brushlabels"] == ["Fruit"]
    assert (await answer(service, keypoint(60, 44), config=config))["result"][0]["value"]["brushlabels"] == ["Sky"]


async def test_every_kind_of_control_gets_an_answer(service: LabellingService) -> None:
    controls = (
        BRUSH
        + f"""
      <PolygonLabels name="poly" toName="image">{LABELS}</PolygonLabels>
      <RectangleLabels name="rect" toName="image">{LABELS}</RectangleLabels>"""
    )
    prediction = await answer(service, keypoint(12, 12), config=view(controls + PROMPTS))
    found = {item["type"]: item for item in prediction["result"]}
    assert {kind: item["from_name"] for kind, item in found.items()} == {
        "brushlabels": "brush",
        "polygonlabels": "poly",
        "rectanglelabels": "rect",
    }
    assert {item["value"][kind][0] for kind, item in found.items()} == {"red"}
    rect = found["rectanglelabels"]["value"]
    sides = [rect["x"] * 0.64, rect["y"] * 0.48, rect["width"] * 0.64, rect["height"] * 0.48]
    np.testing.assert_allclose(sides, [8, 8, 16, 16], atol=1.5)
    points = np.array(found["polygonlabels"]["value"]["points"]) * [0.64, 0.48]
    np.testing.assert_allclose([*points.min(axis=0), *points.max(axis=0)], [8, 8, 24, 24], atol=1.5)
    assert found["polygonlabels"]["value"]["closed"] is True


async def test_a_smart_control_with_the_projects_labels_takes_answers_unless_it_is_only_smart(
    service: LabellingService,
) -> None:
    rect = f'<RectangleLabels name="box" toName="image" smart="true"{{}}>{LABELS}</RectangleLabels>'
    both = await answer(service, keypoint(12, 12), config=view(BRUSH + rect.format("")))
    assert [item["type"] for item in both["result"]] == ["brushlabels", "rectanglelabels"]
    only = await answer(service, keypoint(12, 12), config=view(BRUSH + rect.format(' smartOnly="true"')))
    assert [item["type"] for item in only["result"]] == ["brushlabels"]


PAIR = f"""<Brush name="brush" toName="image"/><Labels name="labels" toName="image">{LABELS}</Labels>
  <Rectangle name="rect" toName="image" smart="true"/><KeyPoint name="kp" toName="image" smart="true"/>"""


async def test_a_brush_beside_labels_gets_the_mask_and_the_name_under_one_id(service: LabellingService) -> None:
    prediction = await answer(service, region("kp", "keypoint", {"x": 20, "y": 25}), config=view(PAIR))
    shape, label = prediction["result"]
    assert (shape["id"], shape["from_name"], shape["type"]) == (label["id"], "brush", "brush")
    assert iou(brush_mask(shape), square(8, 8, 24, 24)) > 0.9
    assert (label["from_name"], label["type"]) == ("labels", "labels")
    assert label["value"] == {**shape["value"], "labels": ["red"]}


async def test_a_label_chosen_beside_the_prompt_is_kept(service: LabellingService) -> None:
    drawn = {"x": 20, "y": 25, "width": 0.2}
    click = region("kp", "keypoint", drawn)
    beside = region("labels", "labels", {**drawn, "labels": ["green"]})
    prediction = await answer(service, click, beside, config=view(PAIR))
    assert prediction["result"][1]["value"]["labels"] == ["green"]
    assert iou(brush_mask(prediction["result"][0]), square(8, 8, 24, 24)) > 0.9


async def test_a_batch_answers_a_brush_beside_labels(service: LabellingService) -> None:
    found = (await answer(service, config=view(PAIR)))["result"]
    assert {item["value"]["labels"][0] for item in found if item["type"] == "labels"} == {"red", "green"}
    assert len({item["id"] for item in found}) == 2


async def test_a_turned_view_turns_no_number_and_is_named_in_the_answer(service: LabellingService) -> None:
    """Label Studio turns the stage, not the regions: their numbers stay those of the picture as it is."""
    straight = await answer(service, keypoint(12, 12))
    turned = await answer(service, keypoint(12, 12) | {"image_rotation": 90})
    assert [p["result"][0]["image_rotation"] for p in (straight, turned)] == [0, 90]
    assert turned["result"][0]["value"] == straight["result"][0]["value"]


async def test_a_control_answers_only_with_labels_it_offers(service: LabellingService) -> None:
    controls = """<BrushLabels name="brush" toName="image"><Label value="blue"/></BrushLabels>
      <RectangleLabels name="rect" toName="image"><Label value="red"/></RectangleLabels>"""
    prediction = await answer(service, keypoint(12, 12), config=view(controls + PROMPTS))
    assert [item["type"] for item in prediction["result"]] == ["rectanglelabels"]


async def test_the_second_click_does_not_encode(service: LabellingService) -> None:
    first = await answer(service, keypoint(12, 12))
    second = await answer(service, keypoint(45, 20))
    assert [p["result"][0]["value"]["brushlabels"] for p in (first, second)] == [["red"], ["green"]]
    assert service.fake.backend.calls["image_encoder"] == 1
    assert service.fake.metric("ovsam_cache_lookups_total", result="miss") == 1
    assert service.fake.metric("ovsam_cache_lookups_total", result="memory") == 1


async def test_a_batch_finds_the_objects_that_the_labels_name(service: LabellingService) -> None:
    prediction = await answer(service)
    found = {item["value"]["brushlabels"][0]: brush_mask(item) for item in prediction["result"]}
    assert len(prediction["result"]) == len(found) == 2  # the blue ground is none of the labels
    assert iou(found["red"], square(8, 8, 24, 24)) > 0.9
    assert iou(found["green"], square(40, 16, 56, 32)) > 0.9


async def test_a_batch_has_one_entry_for_each_task_whatever_happens_to_it(service: LabellingService) -> None:
    await set_up(service)
    service.site.pages[f"{STUDIO}/data/upload/1/broken.png"] = b"not an image"
    images = ("/data/upload/1/gone.png", "/data/upload/1/x.png", "/data/upload/1/broken.png", "ftp://studio/x.png")
    results = (await predict(service, images=images)).json()["results"]
    assert [len(entry["result"]) for entry in results] == [0, 2, 0, 0]


async def test_nothing_drawn_is_nothing_found(service: LabellingService) -> None:
    body = {"tasks": [{"id": 1, "data": {"image": "/x.png"}}], "project": "1.17", "label_config": view()}
    reply = await service.fake.http.post(f"{ROOT}/predict", json={**body, "params": {"context": {"result": []}}})
    assert [entry["result"] for entry in reply.json()["results"]] == [[]]


async def test_a_failed_click_says_why(service: LabellingService) -> None:
    await set_up(service)
    reply = await predict(service, keypoint(12, 12), images=("/data/upload/1/gone.png",))
    assert (reply.status_code, reply.json()["code"]) == (403, "fetch-refused")
    reply = await predict(service, region("e", "ellipselabels", {"x": 1, "y": 1, "radiusX": 2, "radiusY": 2}))
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid-prompt")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"tasks":1}', b'{"tasks":[{"id":1}],"label_config":"<View/>"}'])
async def test_a_malformed_call_is_refused(service: LabellingService, body: bytes) -> None:
    assert (await service.fake.http.post(f"{ROOT}/predict", content=body)).status_code == 400


@pytest.mark.parametrize(
    "config", ["<View", "<View/>", '<!DOCTYPE a [<!ENTITY b "c">]><View>&b;</View>', view("<BrushLabels/>")]
)
async def test_a_config_that_cannot_be_answered_is_refused(service: LabellingService, config: str) -> None:
    await set_up(service)
    assert (await predict(service, keypoint(12, 12), config=config)).status_code == 400


async def test_drafts_are_passed_over(service: LabellingService) -> None:
    await set_up(service)
    task = {"id": 1, "data": {"image": "/data/upload/1/x.png"}, "drafts": [{"result": [{"value": {"rle": "?"}}]}]}
    params = {"context": {"result": [keypoint(12, 12)]}}
    body = {"tasks": [task], "project": "1.17", "label_config": view(), "params": params}
    assert (await service.fake.http.post(f"{ROOT}/predict", json=body)).status_code == 200


async def test_the_token_goes_to_the_projects_own_label_studio_only(service: LabellingService) -> None:
    await set_up(service)
    other = "http://pictures:80/x.png"
    service.site.pages[other] = picture()
    await predict(service, keypoint(12, 12))
    await predict(service, keypoint(12, 12), images=(other,))
    await predict(service, keypoint(12, 12), images=(f"{STUDIO}/data/upload/1/x.png",))
    token = {"authorization": "Token secret"}
    assert [(url, headers) for url, headers, _ in service.site.calls] == [
        (f"{STUDIO}/data/upload/1/x.png", token),
        (other, {}),
        (f"{STUDIO}/data/upload/1/x.png", token),
    ]


async def test_a_personal_token_is_exchanged_and_the_bearer_kept(service: LabellingService) -> None:
    refresh = f"{STUDIO}/api/token/refresh"
    service.site.pages[refresh] = json.dumps({"access": "short.lived.token"}).encode()
    await set_up(service, token="personal.refresh.token")
    await predict(service, keypoint(12, 12))
    await predict(service, keypoint(12, 12))
    (url, _, body), *fetches = service.site.calls
    assert (url, json.loads(body or b"")) == (refresh, {"refresh": "personal.refresh.token"})
    assert [headers for _, headers, _ in fetches] == [{"authorization": "Bearer short.lived.token"}] * 2


async def test_cloud_storage_is_asked_for_through_label_studio(service: LabellingService) -> None:
    await set_up(service)
    name = base64.urlsafe_b64encode(b"s3://bucket/x.png").decode()
    service.site.pages[f"{STUDIO}/tasks/0/presign/?fileuri={name}"] = picture()
    reply = await predict(service, keypoint(12, 12), images=("s3://bucket/x.png",))
    assert reply.status_code == 200, reply.text


async def test_a_data_uri_needs_no_fetch(service: LabellingService) -> None:
    uri = "data:image/png;base64," + base64.b64encode(picture()).decode()
    reply = await predict(service, keypoint(12, 12), images=(uri,))
    assert reply.json()["results"][0]["result"][0]["value"]["brushlabels"] == ["red"]
    assert service.site.calls == []


async def test_an_operators_own_address_and_token_stand_over_those_of_the_set_up(tmp_path: Path) -> None:
    given = {"label_studio_url": "http://inside:9000", "label_studio_token": "operator"}
    async with labelling_service(tmp_path, **given) as service:
        service.site.pages["http://inside:9000/data/upload/1/x.png"] = picture()
        for prepare in (False, True):
            if prepare:
                await set_up(service)
            reply = await predict(service, keypoint(12, 12))
            assert reply.status_code == 200, reply.text
    asked = [(url, headers) for url, headers, _ in service.site.calls]
    assert asked == [("http://inside:9000/data/upload/1/x.png", {"authorization": "Token operator"})] * 2


async def test_a_removed_project_is_forgotten(service: LabellingService) -> None:
    await set_up(service)
    await service.fake.http.post(f"{ROOT}/delete", json={"project": "1.17"})
    reply = await predict(service, keypoint(12, 12))
    assert reply.status_code == 400
    assert "address is not known" in reply.json()["detail"]
