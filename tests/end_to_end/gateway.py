"""A real gateway process, started as a user starts it."""

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

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "service" / "transports" / "web" / "samples"
_START_SECONDS = 600.0  # the full-size model on a busy machine
_PAGE = re.compile(r"page\s+(https?://\S+)/")


@dataclass
class Gateway:
    """One `ovsam serve` process."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path

    def client(self, *, timeout: float = 60.0) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=timeout)

    def async_client(self, *, timeout: float = 60.0) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=timeout, limits=httpx.Limits(max_connections=200))

    def metrics(self) -> str:
        with self.client() as http:
            return http.get("/metrics").text

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self, *, timeout: float = 40.0) -> int:
        """End it as Kubernetes does; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def resident_bytes(self) -> int:
        fields = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def running_gateway(folder: Path, *, name: str = "gateway", **settings: str) -> Iterator[Gateway]:
    """A gateway on a free port; `settings` are OVSAM_ variables without the prefix, in lower case."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    variables = {key: value for key, value in os.environ.items() if not key.startswith("OVSAM_")}
    variables |= {"OVSAM_CACHE_DIR": str(folder / "cache")}
    variables |= {f"OVSAM_{key.upper()}": value for key, value in settings.items()}
    command = [sys.executable, "-m", "service", "serve", "--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield Gateway(process, _await_page(process, log), log)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await_page(process: "subprocess.Popen[bytes]", log: Path) -> str:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        found = _PAGE.search(log.read_text())
        if found:
            return found[1]
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"the gateway did not start:\n{log.read_text()}")
