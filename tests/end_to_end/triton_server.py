"""Runs the launcher as its user does: a real tritonserver under its supervisor, in processes of their own."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "deploy" / "triton" / "launch.py"
SHARED_MEMORY = Path("/dev/shm")
READY = "triton: ready"
START_TIMEOUT = 180.0  # the first start installs the server
QUICK_PROBES = ("--probe-interval", "0.3", "--probe-timeout", "4", "--exit-timeout", "5")


def left_in_shared_memory(prefix: str) -> list[str]:
    """Names in /dev/shm that start so."""
    return [path.name for path in SHARED_MEMORY.glob(f"{prefix}*")]


@dataclass(frozen=True, slots=True)
class TritonProcess:
    """A launcher that was started, what it wrote, and the processes below it."""

    launcher: subprocess.Popen[bytes]
    log: Path
    http_port: int
    grpc_port: int
    metrics_port: int

    @property
    def url(self) -> str:
        """The gRPC endpoint."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def server(self) -> int:
        """Process id of tritonserver."""
        return _children(self.launcher.pid)[0]

    def stub(self, model: str) -> int:
        """Process id of the stub that runs a model (the latest, when an older one has not ended yet)."""
        return max(pid for pid in _children(self.server) if f"/{model}/" in _command(pid))

    def shared_memory(self) -> list[str]:
        """Regions in /dev/shm that belong to this launcher."""
        return left_in_shared_memory(f"ovsam_triton_{self.launcher.pid}_")

    def count(self, text: str) -> int:
        """How often the log says `text`."""
        return self.log.read_text().count(text)

    def wait_for(self, text: str, *, times: int = 1, timeout: float = 30.0) -> None:
        """Wait until the log says `text` so often; fails when the launcher ends before."""
        deadline = time.monotonic() + timeout
        while self.count(text) < times:
            if self.launcher.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"no {text!r} in:\n{self.log.read_text()}")
            time.sleep(0.05)

    def wait_for_recovery(self, *, timeout: float = 60.0) -> None:
        """Wait until the one model that was broken serves again.

        Most often it is reloaded; a stub that dies holding a lock in shared memory takes Triton's backend with it
        (boost's lock_exception), and then the whole server comes back.
        """
        deadline = time.monotonic() + timeout
        while self.count("answers again") + self.count(READY) < 2:
            if self.launcher.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"no recovery in:\n{self.log.read_text()}")
            time.sleep(0.05)

    def end(self, sign: signal.Signals = signal.SIGTERM, *, timeout: float = 30.0) -> int:
        """Send a signal to the launcher alone and return its exit code."""
        self.launcher.send_signal(sign)
        return self.launcher.wait(timeout)


def start_triton(repository: Path, folder: Path, flags: Sequence[str] = QUICK_PROBES) -> TritonProcess:
    """Start the launcher and return at once; its log goes to `folder`."""
    http, grpc, metrics = free_port(), free_port(), free_port()
    log = folder / f"triton-{grpc}.log"
    ports = ["--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", str(metrics)]
    command = [sys.executable, str(LAUNCHER), "--repository", str(repository), *ports, *flags]
    with log.open("wb") as output:
        launcher = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    return TritonProcess(launcher=launcher, log=log, http_port=http, grpc_port=grpc, metrics_port=metrics)


@contextlib.contextmanager
def running_triton(repository: Path, folder: Path, flags: Sequence[str] = QUICK_PROBES) -> Iterator[TritonProcess]:
    """Run a server that is ready inside the block and gone after it."""
    triton = start_triton(repository, folder, flags)
    try:
        triton.wait_for(READY, timeout=START_TIMEOUT)
        yield triton
    finally:
        if triton.launcher.poll() is None:
            triton.end()


def _children(parent: int) -> list[int]:
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if _parent(pid) == parent]


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):  # it ended while we looked
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("PPid:"):
                return int(line.split()[1])
    return 0


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
