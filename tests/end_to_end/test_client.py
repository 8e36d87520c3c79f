"""The Python client, the folder commands and gRPC against a real server process with the bundled model."""

import argparse
import asyncio
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
from pycocotools import mask as coco
from pycocotools.coco import COCO

from service.client.api import Client
from service.folder_commands import register
from service.settings import Settings
from service.transports import ovsam_pb2 as pb
from service.transports import ovsam_pb2_grpc
from tests.end_to_end.gateway import SAMPLES, Gateway, running_gateway
from tests.http_service import metric

CUP = (340, 200)
NAMES = ["cup", "spoon", "cat", "coin", "rocket"]


@dataclass
class Served:
    """A running server and the address of its gRPC port."""

    gateway: Gateway
    grpc: str

    def encodes(self) -> float:
        return metric(self.gateway.metrics(), "ovsam_cache_lookups_total", result="miss")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running_gateway(tmp_path_factory.mktemp("client"), grpc_port=str(port)) as gateway:
        yield Served(gateway, f"127.0.0.1:{port}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pictures = tmp_path / "pictures"
    (pictures / "more").mkdir(parents=True)
    shutil.copy(SAMPLES / "coffee.jpg", pictures)
    shutil.copy(SAMPLES / "cat.jpg", pictures / "more")
    shutil.copy(SAMPLES / "coins.jpg", pictures / "more")
    return pictures


def command(served: Served, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    options = parser.parse_args([*arguments, "--url", served.gateway.url])
    return int(options.run(options, Settings()))


def test_a_click_gives_the_cup_and_the_second_costs_no_encode(served: Served) -> None:
    with Client(served.gateway.url) as client:
        first = client.segment(SAMPLES / "coffee.jpg", points=[CUP], names=NAMES)
        encodes = served.encodes()
        second = client.segment(SAMPLES / "coffee.jpg", points=[CUP], names=NAMES)
    assert first[0].name == "cup"
    assert first[0].mask[CUP[1], CUP[0]]
    assert np.array_equal(first[0].mask, second[0].mask)
    assert second.cache == "memory"
    assert served.encodes() == encodes


def test_prewarming_a_folder_takes_up_where_it_ended(
    served: Served, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = folder / "broken.png"
    broken.write_bytes(b"no image")
    assert command(served, "prewarm", str(folder)) == 1
    assert "1 failed" in capsys.readouterr().out
    broken.unlink()
    encodes = served.encodes()
    assert command(served, "prewarm", str(folder)) == 0
    assert "0 images embedded, 3 known before, 0 failed" in capsys.readouterr().out
    assert served.encodes() == encodes


def test_a_folder_becomes_a_coco_file_that_pycocotools_reads(served: Served, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.json"
    choice = ["--names", ", ".join(NAMES), "--grid", "5", "--min-stability", "0.2", "--min-score", "0.3"]
    assert command(served, "annotate", str(folder), *choice, "--format", "coco", "--out", str(out)) == 0
    labels = COCO(str(out))
    assert [image["file_name"] for image in labels.loadImgs(labels.getImgIds())] == [
        "coffee.jpg",
        "more/cat.jpg",
        "more/coins.jpg",
    ]
    assert [category["name"] for category in labels.loadCats(labels.getCatIds())] == NAMES
    annotations = labels.loadAnns(labels.getAnnIds())
    assert annotations
    for annotation in annotations:
        mask = labels.annToMask(annotation)
        assert mask.shape == (
            labels.imgs[annotation["image_id"]]["height"],
            labels.imgs[annotation["image_id"]]["width"],
        )
        assert mask.sum() == annotation["area"] > 0
        assert coco.toBbox(annotation["segmentation"]).tolist() == annotation["bbox"]
        assert annotation["score"] >= 0.3


def test_a_service_that_is_not_there_is_told_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    options = parser.parse_args(["prewarm", str(folder), "--url", "http://127.0.0.1:9"])
    assert options.run(options, Settings()) == 2
    assert "no answer from the service" in capsys.readouterr().err


async def test_grpc_gives_the_masks_and_names_that_rest_gives(served: Served) -> None:
    content = (SAMPLES / "coffee.jpg").read_bytes()
    with Client(served.gateway.url) as client:
        rest = client.segment(content, points=[CUP], boxes=[(0, 0, 300, 300)], names=NAMES)
    prompts = [pb.Prompt(points=[pb.Point(x=CUP[0], y=CUP[1])]), pb.Prompt(box=pb.Box(x1=0, y1=0, x2=300, y2=300))]
    request = pb.SegmentRequest(image=pb.Image(content=content), prompts=prompts, classify=pb.Classify(names=NAMES))
    async with grpc.aio.insecure_channel(served.grpc) as channel:
        reply = await ovsam_pb2_grpc.SegmentationStub(channel).Segment(request)
    assert reply.cache == "memory"
    for one, other in zip(reply.results, rest, strict=True):
        assert other.rle is not None
        assert one.mask.counts.decode() == other.rle.counts
        assert [(found.name, found.score) for found in one.classes] == list(other.classes)


async def test_five_seconds_of_grpc_load_pass_without_an_error(served: Served) -> None:
    content = (SAMPLES / "coffee.jpg").read_bytes()
    rng = np.random.default_rng(5)
    async with grpc.aio.insecure_channel(served.grpc) as channel:
        stub = ovsam_pb2_grpc.SegmentationStub(channel)
        image = pb.Image(digest=(await stub.PutImage(iter([pb.ImageChunk(content=content)]))).digest)
        encodes = served.encodes()
        until = time.monotonic() + 5.0

        async def click() -> int:
            count = 0
            while time.monotonic() < until:
                point = pb.Point(x=rng.uniform(0, 600), y=rng.uniform(0, 400))
                reply = await stub.Segment(pb.SegmentRequest(image=image, prompts=[pb.Prompt(points=[point])]))
                assert not reply.results[0].HasField("error")
                count += 1
            return count

        counts = await asyncio.gather(*(click() for _ in range(4)))
    assert min(counts) > 0
    assert served.encodes() == encodes
