"""Mixed load for a while: clicks, requests of several prompts, new pictures; memory must not grow, nothing may fail."""

from dataclasses import dataclass
from itertools import count

import httpx

from tests.benchmark.load import closed_loop
from tests.end_to_end.gateway import SAMPLES, Gateway

CLIENTS = 8
SMALL_CACHE_MIB = 32
"""Memory cache of a gateway under test: filled before the first reading, so that what grows after it is a leak."""
_PICTURE = (SAMPLES / "coffee.jpg").read_bytes()
_CLICK = {"points": [{"x": 340.0, "y": 200.0}]}


@dataclass(frozen=True, slots=True)
class Soak:
    """What a soak showed; `grown` is in bytes of resident memory."""

    answers: int
    failed: int
    grown: int


async def soak(gateway: Gateway, *, warm_up: float, seconds: float) -> Soak:
    """Load the gateway for `warm_up` seconds, read its memory, load it for `seconds`, and read it again."""
    turns = count(1)
    with gateway.client() as http:
        digest = http.post("/v1/images", content=_PICTURE).json()["image"]

    async def mixed(http: httpx.AsyncClient) -> httpx.Response:
        turn = next(turns)
        if turn % 20 == 0:  # bytes after the end of a JPEG make a new digest of the same picture
            answer = await http.post("/v1/images", content=_PICTURE + turn.to_bytes(8, "big"))
            return httpx.Response(200) if answer.status_code == 201 else answer
        prompts = 8 if turn % 5 == 0 else 1
        return await http.post("/v1/segment", json={"image": digest, "prompts": [_CLICK] * prompts})

    await closed_loop(gateway.async_client, mixed, clients=CLIENTS, seconds=warm_up)
    before = gateway.resident_bytes()
    outcome = await closed_loop(gateway.async_client, mixed, clients=CLIENTS, seconds=seconds)
    return Soak(len(outcome.seconds), outcome.failed, gateway.resident_bytes() - before)
