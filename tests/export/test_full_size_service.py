"""The service on the exported full-size network answers the golden prompts over HTTP, through the quantised store.

Memory is switched off, so that every click reads its parts and tiles from Redis.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pycocotools import mask as coco

from service.core.masks import restore_mask
from service.core.types import Letterbox, Size
from tests.end_to_end.gateway import Gateway, running_gateway
from tests.export.golden_vocabulary import with_golden_vocabulary
from tests.export.repositories import exported
from tests.export.standin import GOLDEN, standin_network
from tests.redis_server import RedisServer, redis_server

pytestmark = pytest.mark.full_size
MIB = 2**20


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return dict(json.loads((GOLDEN / "image1.json").read_text()))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported repository with the golden classifier as a vocabulary `golden` of its own."""
    made = exported("ovsam-rn50x16", standin_network)
    return with_golden_vocabulary(made, tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(repository: Path, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    settings = {
        "model_repository": str(repository),
        "redis_url": redis.url,
        "memory_cache_mib": "0",
        "request_seconds": "600",
    }
    with running_gateway(tmp_path_factory.mktemp("gateway"), **settings) as running:
        yield running


@pytest.fixture(scope="module")
def digest(gateway: Gateway) -> str:
    with gateway.client(timeout=600) as http:
        content = (GOLDEN / "image1_resized.png").read_bytes()
        return str(http.post("/v1/images", content=content).json()["image"])


def prompt(case: dict[str, Any]) -> dict[str, Any]:
    """A golden prompt; the resized image is as large as the model frame, so coordinates stay."""
    points = [
        {"x": x, "y": y, "label": label}
        for (x, y), label in zip(case.get("points", []), case.get("labels", []), strict=True)
    ]
    return {"points": points, "box": case.get("box")}


def ask(http: httpx.Client, digest: str, cases: list[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
    body = {
        "image": digest,
        "prompts": [prompt(case) for case in cases],
        "classify": {"vocabulary": "golden", "top_k": 1},
    }
    answer = http.post("/v1/segment", json=body | more, timeout=600)
    assert answer.status_code == 200, answer.text
    assert answer.json()["cache"] == "redis"
    return list(answer.json()["results"])


def test_masks_and_labels_are_the_recorded_ones(gateway: Gateway, digest: str, golden: dict[str, Any]) -> None:
    low_res = np.load(GOLDEN / "image1.npz")["lowres"].astype(np.float32)
    letterbox = Letterbox(Size(*golden["resized_hw"]), Size(*golden["resized_hw"]))
    overlaps, labels = [], []
    with gateway.client(timeout=600) as http:
        results = ask(http, digest, golden["cases"])
        alone = [ask(http, digest, [case])[0] for case in golden["cases"][::7]]
    for case, logits, result in zip(golden["cases"], low_res, results, strict=True):
        rle = result["mask"]
        found = coco.decode({"size": rle["size"], "counts": rle["counts"].encode()}).astype(bool)
        expected = restore_mask(logits, letterbox, input_size=1024)
        union = (found | expected).sum()
        overlaps.append((found & expected).sum() / union if union else 1.0)
        if result["classes"]:
            labels.append((int(result["classes"][0]["name"]), case["label"]))
        else:
            assert case["lowres_positive"] == 0
    print(f"golden prompts over HTTP: smallest mask IoU {min(overlaps):.5f}, labels {labels}")
    assert min(overlaps) > 0.999
    assert all(found == expected for found, expected in labels)
    for single, together in zip(alone, results[::7], strict=True):
        assert [item["name"] for item in single["classes"]] == [item["name"] for item in together["classes"]]


def test_what_is_cached_and_what_a_click_reads(
    gateway: Gateway, digest: str, redis: RedisServer, golden: dict[str, Any]
) -> None:
    with redis.client() as client, gateway.client(timeout=600) as http:
        (name,) = (key for key in client.scan_iter() if digest.encode() in key and b"#" not in key)
        sizes = {field: len(value) for field, value in client.hgetall(name).items()}
        mask = sizes.pop(b"mask") / MIB
        region = sum(sizes.values()) / MIB
        small = min(golden["cases"], key=lambda case: case["lowres_positive"] or 10**9)
        read = {}
        for what, more in {"labelled": {}, "masks only": {"classify": None}}.items():
            before = client.info("stats")["total_net_output_bytes"]
            ask(http, digest, [small], **more)
            read[what] = (client.info("stats")["total_net_output_bytes"] - before) / MIB
    print(f"mask object {mask:.2f} MiB, label object {region:.2f} MiB; a click reads {read} MiB")
    assert mask <= 2.1
    assert region <= 25
    assert read["labelled"] - read["masks only"] <= 5
    assert read["masks only"] <= 2.3
