"""The whole production shape by its one command: Triton, Redis and two gateways as real processes."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.end_to_end.triton_server import ROOT, left_in_shared_memory
from tests.ports import free_port, free_ports

STACK = ROOT / "deploy" / "triton" / "stack.py"
SAMPLE = ROOT / "service" / "transports" / "web" / "samples" / "coffee.jpg"
START_TIMEOUT = 240.0
REQUEST = {"prompts": [{"points": [{"x": 340, "y": 200}]}]}


@dataclass(frozen=True, slots=True)
class StackProcess:
    launcher: "subprocess.Popen[bytes]"
    log: Path
    triton_port: int

    def said(self, pattern: str, *, times: int = 1, timeout: float = 60.0) -> list[str]:
        """What the log says that fits `pattern`, once it says it so often."""
        deadline = time.monotonic() + timeout
        while len(found := re.findall(pattern, self.log.read_text())) < times:
            if self.launcher.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"no {pattern!r} in:\n{self.log.read_text()}")
            time.sleep(0.1)
        return found


@contextmanager
def running_stack(folder: Path, **variables: str) -> Iterator[StackProcess]:
    first, triton, redis = free_ports(2), free_ports(3), free_port()
    log = folder / "stack.log"
    ports = ["--port", str(first), "--triton-port", str(triton), "--redis-port", str(redis)]
    environment = os.environ | {"OVSAM_CACHE_DIR": str(folder / "cache")} | variables
    with log.open("wb") as output:
        launcher = subprocess.Popen(
            [sys.executable, str(STACK), *ports], stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    try:
        yield StackProcess(launcher, log, triton)
    finally:
        if launcher.poll() is None:
            launcher.terminate()
            launcher.wait(120)


def test_gateways_share_one_embedding_and_one_signal_ends_all(tmp_path: Path) -> None:
    """An image sent to one gateway is clicked on at the other without being encoded again."""
    with running_stack(tmp_path) as stack:
        ready = stack.said(r"stack: ready: (http://\S+) (http://\S+)", timeout=START_TIMEOUT)[0]
        answer = httpx.post(f"{ready[0]}/v1/images", content=SAMPLE.read_bytes(), timeout=60)
        assert answer.status_code == 201
        click = REQUEST | {"image": answer.json()["image"]}
        before = _decoded(stack.triton_port)
        results = [httpx.post(f"{ready[1]}/v1/segment", json=click, timeout=60).json() for _ in range(20)]
        assert [result["cache"] for result in results] == ["redis", *["memory"] * 19]
        assert all(result["results"][0]["area"] > 0 for result in results)
        assert _decoded(stack.triton_port) - before >= len(results)
        pids = _session_of(stack.launcher.pid)
        assert len(pids) >= 5
        stack.launcher.send_signal(signal.SIGTERM)
        assert stack.launcher.wait(60) == 0
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert not left_in_shared_memory("ovsam_")


def test_a_killed_gateway_is_started_again(tmp_path: Path) -> None:
    """The stack says which part ended, and the same address answers soon after."""
    with running_stack(tmp_path) as stack:
        urls = stack.said(r"stack: ready: (http://\S+) (http://\S+)", timeout=START_TIMEOUT)[0]
        gateway = next(
            pid for pid in _session_of(stack.launcher.pid) if "OVSAM_PORT=" + urls[0][-5:] in _variables(pid)
        )
        os.kill(gateway, signal.SIGKILL)
        stack.said("gateway1 ended with code -9 and is started again")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{urls[0]}/readyz", timeout=20).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.2)
        raise AssertionError(stack.log.read_text())


def test_a_missing_redis_is_said_in_one_line(tmp_path: Path) -> None:
    """Nothing is started when a part is not installed."""
    with running_stack(tmp_path, PATH="/nowhere") as stack:
        assert stack.launcher.wait(30) == 1
        assert stack.log.read_text() == "stack: redis-server is not installed (Debian: apt install redis-server)\n"


def _decoded(triton: int) -> int:
    """Prompts that Triton has decoded so far, the probes of its supervisor included."""
    answer = httpx.get(f"http://127.0.0.1:{triton}/v2/models/prompt_decoder/stats").json()
    return sum(version["inference_count"] for version in answer["model_stats"])


def _session_of(parent: int) -> list[int]:
    """Every process below a parent."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            parents[int(path.parent.name)] = int(re.findall(r"^PPid:\s+(\d+)", path.read_text(), re.MULTILINE)[0])
        except OSError:
            continue
    found = [parent]
    for pid in found:
        found += [child for child, above in parents.items() if above == pid]
    return found[1:]


def _variables(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
