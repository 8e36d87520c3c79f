"""The stack that is drilled, and how a part of it is killed."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from asking import ADDRESS, DrillFailed, ask, wait_for

ROOT = Path(__file__).resolve().parents[2]


class Stack:
    """`deploy/triton/stack.py` on ports of its own."""

    def __init__(self, folder: Path, first_port: int) -> None:
        self.gateways = [first_port, first_port + 1]
        self.triton, self.redis = first_port + 10, first_port + 20
        command = [sys.executable, str(ROOT / "deploy" / "triton" / "stack.py"), "--port", str(first_port)]
        command += ["--triton-port", str(self.triton), "--redis-port", str(self.redis)]
        self.log = folder / "stack.log"
        variables = os.environ | {"OVSAM_CACHE_DIR": str(folder / "cache")}
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(command, env=variables, stdout=output, stderr=subprocess.STDOUT)

    def await_ready(self) -> None:
        """Until all parts answer; raises DrillFailed when one does not."""

        def started() -> bool:
            if self._process.poll() is not None:
                raise DrillFailed(f"the stack ended:\n{self.log.read_text()}")
            return "stack: ready" in self.log.read_text()

        wait_for("the stack is ready", started, seconds=300)

    def kill(self, victim: str) -> None:
        """End one part as a crash would, if it runs."""
        marks = {"redis": "redis-server", "triton": "bin/tritonserver", "gateway": f"OVSAM_PORT={self.gateways[0]}"}
        for pid in sorted(_below(self._process.pid)):
            if marks[victim] in _told(pid, environment=victim == "gateway"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                return

    def well(self) -> bool:
        """Whether each gateway is ready and Redis holds embeddings again."""
        return all(map(ready, self.gateways)) and _keys_in_redis(self.redis) > 0

    def stop(self) -> None:
        """End all parts."""
        self._process.terminate()
        self._process.wait(120)


def _below(parent: int) -> list[int]:
    """Every process below a parent."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            children.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    found = [parent]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def _told(pid: int, *, environment: bool) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/{'environ' if environment else 'cmdline'}").read_bytes().decode(errors="replace")
    return ""


def _keys_in_redis(port: int) -> int:
    with socket.create_connection((ADDRESS, port), timeout=5) as connection:
        connection.sendall(b"DBSIZE\r\n")
        return int(connection.recv(32)[1:])


def ready(port: int) -> bool:
    """Whether a gateway has every model's answer."""
    return ask(port, "GET", "/readyz")[0] == http.client.OK
