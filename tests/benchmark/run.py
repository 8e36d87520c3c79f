"""`make bench`: latency and throughput of the service against the bare models, all ratios taken within this run."""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmark.bare import BareModel, click_seconds, naive_seconds
from tests.benchmark.figures import Figure, Latency, as_json, machine, ratio, table
from tests.benchmark.load import Call, closed_loop, open_loop
from tests.benchmark.soak import SMALL_CACHE_MIB, soak
from tests.end_to_end.gateway import ROOT, SAMPLES, Gateway, running_gateway
from tests.end_to_end.triton_server import running_triton
from tests.http_service import metric
from tests.redis_server import redis_server

X, Y = 340.0, 200.0
CLICK = {"points": [{"x": X, "y": Y}]}
COFFEE = (SAMPLES / "coffee.jpg").read_bytes()
Say = Callable[[Figure], None]


def main() -> int:
    """Run, print the table, and write JSON and markdown where asked; 1 when a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=Path, default=ROOT / "model_repository")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each load (default 5)")
    parser.add_argument("--threads", type=int, default=1, help="threads of a model call, everywhere (default 1)")
    parser.add_argument("--soak", type=float, default=0.0, help="minutes of mixed load at the end (default 0)")
    parser.add_argument("--no-triton", action="store_true", help="leave Triton out")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    figures: list[Figure] = []

    def say(figure: Figure) -> None:
        figures.append(figure)
        print(f"{figure.name:58} {figure.value:40} {figure.wanted}", flush=True)

    asyncio.run(_measure(options, say))
    print(f"\n{machine()}\n\n{table(figures)}")
    if options.json:
        options.json.write_text(as_json(figures, {"seconds": options.seconds, "threads": options.threads}))
    if options.markdown:
        options.markdown.write_text(f"# Benchmark\n\n{machine()}; `make bench`\n\n{table(figures)}\n")
    return 1 if any(figure.holds is False for figure in figures) else 0


async def _measure(options: argparse.Namespace, say: Say) -> None:
    model = BareModel(options.repository, threads=options.threads)
    await model.open(COFFEE)
    bare = Latency.of(await click_seconds(model, X, Y, prompts=1, seconds=options.seconds))
    batched = Latency.of(await click_seconds(model, X, Y, prompts=16, seconds=options.seconds))
    naive = Latency.of(await naive_seconds(model, COFFEE, X, Y, seconds=options.seconds))
    await model.close()
    say(Figure("bare decoder + region encoder, 1 prompt", str(bare)))
    say(Figure("bare decoder + region encoder, 16 prompts", str(batched)))
    say(Figure("naive service (encodes for each click), in process", str(naive)))
    bare_rate = 16 / (batched.p50 / 1000)
    shared: dict[str, Any] = {"threads": str(options.threads), "model_repository": str(options.repository)}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        redis = stack.enter_context(redis_server(folder))
        gateway = stack.enter_context(running_gateway(folder, redis_url=redis.url, **shared))
        await _embedded(gateway, bare, naive, bare_rate, options.seconds, say)
        with redis.client() as client:
            used = sum(client.memory_usage(key) or 0 for key in client.scan_iter())
            say(Figure("bytes in Redis for one picture and its masks", f"{used / 2**20:.2f} MiB"))
        await _storm(gateway, say)
        if options.soak:
            await _soak(folder, redis.url, options.soak, shared, say)
    if not options.no_triton:
        with tempfile.TemporaryDirectory() as name, running_triton(options.repository, Path(name)) as triton:
            for memory in ("0", "1"):
                settings: dict[str, Any] = shared | {"triton_url": triton.url, "triton_shared_memory": memory}
                with running_gateway(Path(name), name=f"triton-{memory}", **settings) as gateway:
                    warm = Latency.of((await _clicks(gateway, clients=1, seconds=options.seconds))[0])
                how = "with shared memory" if memory == "1" else "by messages"
                say(Figure(f"warm click through Triton {how}", str(warm)))
                most = None if memory == "1" else 3.0
                say(ratio(f"  p50 against the bare models ({how})", warm.p50 / bare.p50, most=most))


async def _embedded(
    gateway: Gateway, bare: Latency, naive: Latency, bare_rate: float, seconds: float, say: Say
) -> None:
    warm = Latency.of((await _clicks(gateway, clients=1, seconds=seconds))[0])
    say(Figure("warm click with labels, 1 client", str(warm)))
    say(ratio("  p50 against the bare models", warm.p50 / bare.p50, most=1.5))
    say(ratio("  naive service against it", naive.p50 / warm.p50, least=10))
    for clients in (4, 16, 64):
        latencies, rate = await _clicks(gateway, clients=clients, seconds=seconds)
        say(Figure(f"warm clicks, {clients} clients: {rate:.0f} a second", str(Latency.of(latencies))))
    say(ratio("  saturated throughput against the bare batched models", rate / bare_rate, least=0.8))
    steady = await open_loop(gateway.async_client, _call(gateway, prompts=1), rate=0.7 * rate, seconds=2 * seconds)
    latency = Latency.of(steady.seconds)
    say(Figure("open loop at 70 % of saturation", f"{latency}, {steady.failed} failed"))
    say(ratio("  p99 against its p50", latency.p99 / latency.p50, most=4))
    for prompts in (1, 4, 16, 64):
        latencies, _ = await _clicks(gateway, clients=1, seconds=seconds, prompts=prompts)
        say(Figure(f"{prompts} prompts in one request", str(Latency.of(latencies))))


async def _clicks(gateway: Gateway, *, clients: int, seconds: float, prompts: int = 1) -> tuple[list[float], float]:
    outcome = await closed_loop(
        gateway.async_client,
        _call(gateway, prompts=prompts),
        clients=clients,
        seconds=seconds,
        warm_up=min(1.0, seconds),  # every buffer and cache at its size
    )
    if outcome.failed:
        raise RuntimeError(f"{outcome.failed} requests failed")
    return outcome.seconds, outcome.rate


def _call(gateway: Gateway, *, prompts: int) -> Call:
    with gateway.client() as http:
        digest = http.post("/v1/images", content=COFFEE).json()["image"]
    body = {"image": digest, "prompts": [CLICK] * prompts}
    return lambda http: http.post("/v1/segment", json=body)


async def _storm(gateway: Gateway, say: Say) -> None:
    """64 first clicks on a picture that nobody has seen."""
    content = (SAMPLES / "cat.jpg").read_bytes()
    before = metric(gateway.metrics(), "ovsam_batch_items_count", model="image_encoder")
    files: dict[str, Any] = {"image": content, "request": (None, b'{"prompts":[{"points":[{"x":200,"y":150}]}]}')}
    async with gateway.async_client() as http:
        answers = await asyncio.gather(*(http.post("/v1/segment", files=files) for _ in range(64)))
    encodes = metric(gateway.metrics(), "ovsam_batch_items_count", model="image_encoder") - before
    failed = sum(answer.status_code != 200 for answer in answers)
    say(
        Figure(
            "first-click storm of 64: encoder runs, failures",
            f"{encodes:g}, {failed}",
            "1, 0",
            (encodes, failed) == (1, 0),
        )
    )


async def _soak(folder: Path, redis_url: str, minutes: float, settings: dict[str, Any], say: Say) -> None:
    small = settings | {"redis_url": redis_url, "memory_cache_mib": str(SMALL_CACHE_MIB)}
    with running_gateway(folder, name="soak", **small) as gateway:
        shown = await soak(gateway, warm_up=min(60.0, minutes * 10), seconds=minutes * 60)
    name = f"soak of {minutes:g} minutes: {shown.answers} answers, failed"
    say(Figure(name, str(shown.failed), "0", shown.failed == 0))
    grown = shown.grown / 2**20
    say(Figure("  resident memory grew by", f"{grown:.0f} MiB", "<= 32 MiB", grown <= 32))


if __name__ == "__main__":
    raise SystemExit(main())
