"""The bundled model through a real server process: what a new user gets on one machine."""

import asyncio
import io
import json
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from service.core.types import BoolArray
from tests.end_to_end.gateway import ROOT, SAMPLES, Gateway, running_gateway
from tests.http_service import metric

COFFEE = (SAMPLES / "coffee.jpg").read_bytes()
CUP = {"points": [{"x": 340, "y": 200}]}
ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def http(gateway: Gateway) -> Iterator[httpx.Client]:
    with gateway.client() as client:
        yield client


def parts(content: bytes, **body: Any) -> dict[str, Any]:
    return {"image": ("image", content), "request": (None, json.dumps(body).encode())}


def mask_of(result: dict[str, Any]) -> BoolArray:
    rle = result["mask"]
    mask: BoolArray = coco.decode({"size": rle["size"], "counts": rle["counts"].encode()}).astype(bool)
    return mask


def iou(one: BoolArray, other: BoolArray) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


def drawn_mask(category: str, file: str) -> BoolArray:
    """A mask drawn by hand, from the evaluation set."""
    document = json.loads((ROOT / "tests" / "evaluation_set" / "annotations.json").read_text())
    (image,) = (entry for entry in document["images"] if Path(entry["file_name"]).name == file)
    (wanted,) = (entry["id"] for entry in document["categories"] if entry["name"] == category)
    (found,) = (a for a in document["annotations"] if a["image_id"] == image["id"] and a["category_id"] == wanted)
    shape = found["segmentation"]
    if isinstance(shape, list):
        shape = coco.merge(coco.frPyObjects(shape, image["height"], image["width"]))
    mask: BoolArray = coco.decode(shape).astype(bool)
    return mask


def test_the_printed_curl_line_gives_the_cup_and_a_sensible_name(gateway: Gateway) -> None:
    (line,) = (line for line in gateway.log.read_text().splitlines() if line.strip().startswith("curl"))
    answer = subprocess.run(["curl", "-sS", *shlex.split(line)[1:]], check=True, capture_output=True)
    (result,) = json.loads(answer.stdout)["results"]
    names = {item["name"] for item in result["classes"][:3]}
    assert names & {"cup", "mug", "coffee", "coffee cup"}, names
    assert mask_of(result)[200, 340]


def test_a_box_around_the_cat_gives_the_cat(http: httpx.Client) -> None:
    with Image.open(SAMPLES / "cat.jpg") as picture:
        width, height = picture.size
    body = {"prompts": [{"box": [0, 0, width, height]}], "classify": {"names": ["cat", "dog", "car", "house"]}}
    answer = http.post("/v1/segment", files=parts((SAMPLES / "cat.jpg").read_bytes(), **body))
    (result,) = answer.json()["results"]
    assert result["classes"][0]["name"] == "cat"
    assert result["area"] > 0.1 * width * height


def test_fifty_first_clicks_on_one_new_image_encode_it_once(gateway: Gateway) -> None:
    noise = np.random.default_rng(5).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, format="PNG")
    before = metric(gateway.metrics(), "ovsam_batch_items_count", model="image_encoder")

    async def click_all() -> list[httpx.Response]:
        async with gateway.async_client() as http:
            body = {"prompts": [{"points": [{"x": 200, "y": 150}]}]}
            files = parts(stream.getvalue(), **body)
            leaving = asyncio.ensure_future(http.post("/v1/segment", files=files))
            staying = [asyncio.ensure_future(http.post("/v1/segment", files=files)) for _ in range(50)]
            await asyncio.sleep(0.05)
            leaving.cancel()
            return list(await asyncio.gather(*staying))

    answers = asyncio.run(click_all())
    assert {answer.status_code for answer in answers} == {200}
    text = gateway.metrics()
    assert metric(text, "ovsam_batch_items_count", model="image_encoder") == before + 1
    assert len({answer.json()["results"][0]["area"] for answer in answers}) == 1


def test_the_second_click_sends_no_image_and_runs_no_encoder(gateway: Gateway, http: httpx.Client) -> None:
    digest = http.post("/v1/images", content=COFFEE).json()["image"]
    before = gateway.metrics()
    body = {"image": digest, "prompts": [CUP]}
    answer = http.post("/v1/segment", json=body)
    assert answer.status_code == 200
    assert len(answer.request.content) < 1024
    after = gateway.metrics()
    for name, labels in (
        ("ovsam_batch_items_count", {"model": "image_encoder"}),
        ("ovsam_stage_seconds_count", {"stage": "encode"}),
    ):
        assert metric(after, name, **labels) == metric(before, name, **labels)
    assert metric(after, "ovsam_cache_lookups_total", result="memory") == 1 + metric(
        before, "ovsam_cache_lookups_total", result="memory"
    )


def test_all_eight_exif_orientations_give_one_mask(http: httpx.Client) -> None:
    picture = Image.open(io.BytesIO(COFFEE)).convert("RGB")
    undo = [None, *(Image.Transpose(code) for code in (0, 3, 1, 5, 2, 6, 4))]
    masks = []
    for orientation, turn in enumerate(undo, start=1):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        stream = io.BytesIO()
        (picture.transpose(turn) if turn is not None else picture).save(stream, format="PNG", exif=exif)
        answer = http.post("/v1/segment", files=parts(stream.getvalue(), prompts=[CUP], classify=None))
        assert answer.json()["image"] | {"digest": ""} == {"digest": "", "width": 600, "height": 400}
        masks.append(mask_of(answer.json()["results"][0]))
    assert all(np.array_equal(mask, masks[0]) for mask in masks)


def odd_images() -> dict[str, bytes]:
    picture = Image.open(io.BytesIO(COFFEE)).convert("RGB").resize((120, 80))

    def packed(image: Image.Image, form: str = "PNG") -> bytes:
        stream = io.BytesIO()
        image.save(stream, format=form)
        return stream.getvalue()

    deep = (np.asarray(picture.convert("L")).astype(np.uint16)) * 257
    return {
        "gray": packed(picture.convert("L")),
        "palette": packed(picture.convert("P")),
        "alpha": packed(picture.convert("RGBA")),
        "16-bit": packed(Image.fromarray(deep)),
        "cmyk": packed(picture.convert("CMYK"), "JPEG"),
        "1x1": packed(Image.new("RGB", (1, 1), "red")),
        "20000x10": packed(Image.new("RGB", (20_000, 10), "red")),
    }


@pytest.mark.parametrize(("name", "content"), odd_images().items(), ids=odd_images().keys())
def test_odd_images_are_segmented(http: httpx.Client, name: str, content: bytes) -> None:
    answer = http.post("/v1/segment", files=parts(content, prompts=[{"points": [{"x": 0.5, "y": 0.5}]}]))
    assert answer.status_code == 200, (name, answer.text)
    assert answer.json()["results"][0]["error"] is None


@pytest.mark.parametrize(
    ("content", "status"),
    [(COFFEE[: len(COFFEE) // 2], 415), (b"just text, renamed to .jpg", 415), (b"", 415)],
    ids=["truncated", "text", "empty"],
)
def test_broken_images_are_refused_and_the_server_serves_on(http: httpx.Client, content: bytes, status: int) -> None:
    answer = http.post("/v1/images", content=content, headers={"content-type": "image/jpeg"})
    assert (answer.status_code, answer.json()["code"]) == (status, "not-an-image")
    assert http.get("/readyz").status_code == 200


@pytest.mark.parametrize("vocabulary", ["common", "coco", "lvis", "imagenet"])
def test_the_shipped_vocabularies_answer(http: httpx.Client, vocabulary: str) -> None:
    body = {"prompts": [CUP], "classify": {"vocabulary": vocabulary, "top_k": 3}}
    answer = http.post("/v1/segment", files=parts(COFFEE, **body))
    while answer.status_code == 503:  # a slow machine is told to come again while the names are being embedded
        assert answer.json()["code"] == "warming"
        time.sleep(float(answer.headers["retry-after"]))
        answer = http.post("/v1/segment", files=parts(COFFEE, **body))
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["results"][0]["classes"]) == 3


def test_all_shipped_vocabularies_have_their_sizes(http: httpx.Client) -> None:
    names = http.get("/v1/vocabularies").json()["vocabularies"]
    sizes = {name: http.get(f"/v1/vocabularies/{name}").json()["size"] for name in names}
    assert 200 <= sizes.pop("common") <= 300
    assert sizes == {"coco": 80, "lvis": 1203, "imagenet": 1000, "imagenet21k": 21_841, "open-22k": 22_033}


def test_the_command_line_draws_an_overlay(tmp_path: Path) -> None:
    out = tmp_path / "overlay.png"
    command = [str(ROOT / ".venv/bin/ovsam"), "segment", str(SAMPLES / "coffee.jpg"), "--point", "340,200"]
    done = subprocess.run(
        [*command, "--names", "cup,cat", "--out", str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "cup" in done.stdout
    with Image.open(out) as drawn, Image.open(SAMPLES / "coffee.jpg") as original:
        changed = np.abs(np.asarray(drawn).astype(int) - np.asarray(original).astype(int)).max(axis=2) > 25
    assert 0.02 < changed.mean() < 0.9


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["segment", "missing.jpg", "--point", "1,1"], "missing.jpg"),
        (["segment", str(SAMPLES / "coffee.jpg")], "--point or --box"),
        (["segment", str(SAMPLES / "coffee.jpg"), "--point", "1"], "2 numbers"),
        (["--model-repository", "nowhere", "models"], "manifest.json"),
        (["segment", str(SAMPLES / "coffee.jpg"), "--point", "9999,1"], "outside the image"),
    ],
)
def test_wrong_commands_say_what_is_wrong(arguments: list[str], words: str) -> None:
    done = subprocess.run([str(ROOT / ".venv/bin/ovsam"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_setting_stops_the_start_with_a_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(ROOT / ".venv/bin/ovsam"), "serve"],
        env={"OVSAM_PORT": "many", "PATH": "", "OVSAM_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "OVSAM_PORT" in done.stderr
    assert "Traceback" not in done.stderr
