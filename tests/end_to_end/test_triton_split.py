"""Encoder and decoder on servers of their own: what one half carries when the other is dead or another model."""

import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.adapters.manifest import Repository, read_repository
from service.adapters.split_backend import ENCODER, OTHERS, SplitBackend
from service.adapters.triton_backend import TritonBackend
from service.core.errors import BackendUnavailable
from service.core.types import Array
from tests.end_to_end.gateway import SAMPLES, Gateway, running_gateway
from tests.end_to_end.triton_server import QUICK_PROBES, READY, ROOT, TritonProcess, running_triton
from tests.tiny_repository import write_tiny_repository

CLICK = {"prompts": [{"points": [{"x": 340, "y": 200}]}], "classify": {"names": ["cup", "table"]}}


@contextmanager
def running_halves(encoders: Path, decoders: Path, log: Path) -> Iterator[tuple[TritonProcess, TritonProcess]]:
    """A server of the image encoder of one repository, and one of all else of another."""
    with (
        running_triton(encoders, log, (*QUICK_PROBES, "--models", ENCODER)) as encoder,
        running_triton(decoders, log, (*QUICK_PROBES, "--models", ",".join(OTHERS))) as decoder,
    ):
        yield encoder, decoder


@pytest.fixture
def halves(tmp_path: Path) -> Iterator[tuple[TritonProcess, TritonProcess]]:
    repository = ROOT / "model_repository"
    with running_halves(repository, repository, tmp_path) as pair:
        yield pair


@pytest.fixture(params=["0", "1"], ids=["messages", "shared memory"])
def gateway(
    request: pytest.FixtureRequest, halves: tuple[TritonProcess, TritonProcess], tmp_path: Path
) -> Iterator[Gateway]:
    encoder, decoder = halves
    settings = {
        "triton_url": decoder.url,
        "triton_encoder_url": encoder.url,
        "triton_shared_memory": request.param,
        "request_seconds": "20",
    }
    with running_gateway(tmp_path / "gateway", **settings) as process:
        yield process


@contextmanager
def dead(triton: TritonProcess) -> Iterator[None]:
    """Kill the server, and stop its launcher inside the block: it starts the server again afterwards."""
    server = triton.server
    triton.launcher.send_signal(signal.SIGSTOP)
    os.kill(server, signal.SIGKILL)
    try:
        yield
    finally:
        triton.launcher.send_signal(signal.SIGCONT)
    triton.wait_for(READY, times=2, timeout=60)


def until(holds: Callable[[], bool], *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)


def upload(http: httpx.Client, name: str) -> httpx.Response:
    return http.post("/v1/images", content=(SAMPLES / name).read_bytes())


def test_each_half_serves_on_without_the_other(gateway: Gateway, halves: tuple[TritonProcess, TritonProcess]) -> None:
    """A dead encoder costs new pictures alone, a dead decoder clicks alone; a restart mends both by itself."""
    encoder, decoder = halves
    with gateway.client() as http:
        kept = upload(http, "coffee.jpg").json()["image"]

        def click() -> httpx.Response:
            return http.post("/v1/segment", json=CLICK | {"image": kept})

        def found() -> dict[str, object]:
            result: dict[str, object] = click().json()["results"][0]
            del result["mask_ref"]  # names the answer, not the mask
            return result

        before = found()
        with dead(encoder):
            refused = upload(http, "cat.jpg")
            assert refused.status_code == 503
            assert refused.json()["code"] == "backend-unavailable"
            assert int(refused.headers["retry-after"]) >= 1
            for _ in range(5):
                assert found() == before
            assert http.get("/readyz").status_code == 200
        until(lambda: upload(http, "cat.jpg").status_code == 201, seconds=30)
        with dead(decoder):
            until(lambda: http.get("/readyz").status_code == 503, seconds=10)
            assert click().status_code == 503
            assert upload(http, "astronaut.jpg").status_code == 201
        until(lambda: http.get("/readyz").status_code == 200, seconds=30)
        assert found() == before


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    write_tiny_repository(tmp_path / "repository")
    return read_repository(tmp_path / "repository")


@asynccontextmanager
async def engine_of(
    repository: Repository, *, encoder: TritonProcess, others: TritonProcess
) -> AsyncIterator[SplitBackend]:
    engine = SplitBackend(
        encoder=TritonBackend(repository, [encoder.url], models=[ENCODER]),
        others=TritonBackend(repository, [others.url], models=OTHERS),
    )
    try:
        yield engine
    finally:
        await engine.close()


def picture() -> dict[str, Array]:
    return {"image": np.zeros((1, 64, 64, 3), np.uint8), "valid_size": np.full((1, 2), 64, np.int32)}


def texts() -> dict[str, Array]:
    return {"token_ids": np.array([[1, 7]], np.int64)}


async def test_an_encoder_of_another_revision_is_never_asked(repository: Repository, tmp_path: Path) -> None:
    """The servers are held to one manifest, so that what one has encoded fits what the other decodes."""
    other = tmp_path / "other"
    shutil.copytree(repository.folder, other)
    config = other / ENCODER / "config.pbtxt"
    config.write_text(config.read_text().replace('{ string_value: "', '{ string_value: "0'))
    with running_halves(other, repository.folder, tmp_path) as (encoder, others):
        async with engine_of(repository, encoder=encoder, others=others) as engine:
            with pytest.raises(BackendUnavailable, match=r"serves another image_encoder .*another digest"):
                await engine.probe()
            with pytest.raises(BackendUnavailable, match="does not fit the manifest"):
                await engine.run(ENCODER, picture())
            await engine.run("text_encoder", texts())


async def test_exchanged_addresses_are_not_ready(repository: Repository, tmp_path: Path) -> None:
    """Each model is asked for only where the settings say that it is served."""
    with running_halves(repository.folder, repository.folder, tmp_path) as (encoder, others):
        async with engine_of(repository, encoder=others, others=encoder) as engine:
            with pytest.raises(BackendUnavailable, match=r"not ready|not found|UNAVAILABLE|NOT_FOUND"):
                await engine.probe()
        async with engine_of(repository, encoder=encoder, others=others) as engine:
            await engine.probe()
            assert (await engine.run("text_encoder", texts()))["text_embedding"].shape == (1, 3)
            assert list(await engine.run(ENCODER, picture())) == ["image_embedding", "colours"]
