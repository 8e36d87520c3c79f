"""A gateway in traffic while Triton is killed or hangs: clean refusals, then all is well without a restart."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.gateway import SAMPLES, Gateway, running_gateway
from tests.end_to_end.triton_server import ROOT, TritonProcess, running_triton

CLICK = {"prompts": [{"points": [{"x": 340, "y": 200}]}], "classify": None, "output": {"mask": "none"}}


@pytest.fixture
def triton(tmp_path: Path) -> Iterator[TritonProcess]:
    with running_triton(ROOT / "model_repository", tmp_path) as process:
        yield process


@pytest.fixture(params=["", "1"], ids=["messages", "shared memory"])
def gateway(request: pytest.FixtureRequest, triton: TritonProcess, tmp_path: Path) -> Iterator[Gateway]:
    settings = {"triton_url": triton.url, "triton_shared_memory": request.param or "0", "request_seconds": "8"}
    with running_gateway(tmp_path / "gateway", **settings) as process:
        yield process


STRUCK: dict[str, tuple[Callable[[TritonProcess], int], signal.Signals]] = {
    "killed server": (lambda triton: triton.server, signal.SIGKILL),
    "killed decoder stub": (lambda triton: triton.stub("prompt_decoder"), signal.SIGKILL),
    "hung server": (lambda triton: triton.server, signal.SIGSTOP),
}


@pytest.mark.parametrize("victim", STRUCK)
async def test_a_blow_in_traffic_is_refused_clean_and_healed(
    gateway: Gateway, triton: TritonProcess, victim: str
) -> None:
    """Each answer is a result or 503/504 with a problem document; /readyz falls within seconds and comes back."""
    outcomes: Counter[int] = Counter()

    async def click_without_pause(http: httpx.AsyncClient, image: str) -> None:
        while True:
            answer = await http.post("/v1/segment", json=CLICK | {"image": image})
            outcomes[answer.status_code] += 1
            if answer.status_code == 200:
                assert answer.json()["results"][0]["area"] > 0
            else:
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.status_code == 504 or int(answer.headers["retry-after"]) >= 1
                await asyncio.sleep(0.05)

    async def until_ready(http: httpx.AsyncClient, *, ready: bool, seconds: float) -> None:
        end = time.monotonic() + seconds
        while ((await http.get("/readyz")).status_code == 200) is not ready:
            assert time.monotonic() < end, f"not {ready=} within {seconds} s"
            await asyncio.sleep(0.1)

    async with gateway.async_client() as http:
        image = (await http.post("/v1/images", content=(SAMPLES / "coffee.jpg").read_bytes())).json()["image"]
        clients = [asyncio.create_task(click_without_pause(http, image)) for _ in range(3)]
        await asyncio.sleep(2)
        process, sign = STRUCK[victim]
        os.kill(process(triton), sign)
        await until_ready(http, ready=False, seconds=8)
        await until_ready(http, ready=True, seconds=60)
        before = outcomes[200]
        await asyncio.sleep(3)
        for client in clients:
            client.cancel()
        stopped = await asyncio.gather(*clients, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in stopped), stopped
    assert set(outcomes) <= {200, 503, 504}
    assert outcomes[200] > before > 0
