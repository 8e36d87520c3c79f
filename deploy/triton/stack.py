"""The whole production shape on one machine: Triton, Redis and stateless gateways; one Ctrl-C ends all.

    python deploy/triton/stack.py --repository model_repository --gateways 2

Gateways listen on --port and the ports after it (gRPC: 1000 above), Triton on --triton-port (HTTP) and the two
after it (gRPC, metrics).
"""

import argparse
import http.client
import logging
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from processes import Child, kill_session, spawn

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "127.0.0.1"
GRPC_PORT_DISTANCE = 1000  # a gateway's gRPC port is its HTTP port plus this
START_TIMEOUT = 300.0  # seconds; the first start installs the Triton server
STOP_TIMEOUT = 35.0  # seconds; a gateway first finishes its requests
RESTART_PAUSE = 1.0
TICK = 0.2

log = logging.getLogger("stack")


class StackFailed(Exception):
    """A part is missing or did not become ready; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the stack."""

    name: str
    command: Sequence[str]
    variables: dict[str, str]
    ready: Callable[[], bool]


class Stack:
    """Starts parts in order, passes on what they print, restarts those that end, stops them in reverse."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._children: dict[str, Child] = {}
        self._selector = selectors.DefaultSelector()
        self._unfinished: dict[str, bytes] = {}
        self._width = max(len(part.name) for part in parts)

    def run(self, greeting: str) -> None:
        """Run until interrupted; raises StackFailed when a part does not start."""
        try:
            for part in self._parts:
                self._start(part)
                self._await_ready(part)
            log.info("%s", greeting)
            while True:
                self._pass_output_on(TICK)
                for part in self._parts:
                    if (code := self._children[part.name].poll()) is not None:
                        log.error("%s ended with code %d and is started again", part.name, code)
                        time.sleep(RESTART_PAUSE)
                        self._start(part)
        finally:
            for part in reversed(self._parts):
                self._stop(part)

    def _start(self, part: Part) -> None:
        child = spawn(part.command, variables=os.environ | part.variables, output=subprocess.PIPE)
        assert child.stdout is not None
        self._children[part.name] = child
        self._selector.register(child.stdout, selectors.EVENT_READ, part.name)

    def _await_ready(self, part: Part) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not part.ready():
            self._pass_output_on(TICK)
            if (code := self._children[part.name].poll()) is not None:
                self._pass_output_on(TICK)
                raise StackFailed(f"{part.name} ended with code {code} before it was ready")
            if time.monotonic() > deadline:
                raise StackFailed(f"{part.name} was not ready within {START_TIMEOUT:.0f} s")

    def _stop(self, part: Part) -> None:
        child = self._children.pop(part.name, None)
        if child is None:
            return
        child.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT
        try:
            while child.poll() is None and time.monotonic() < deadline:
                self._pass_output_on(TICK)
        except KeyboardInterrupt:
            log.warning("interrupted again: killing %s", part.name)
        finally:
            kill_session(child)

    def _pass_output_on(self, seconds: float) -> None:
        """Print what the parts wrote, line by line with their names."""
        for key, _ in self._selector.select(seconds):
            name, stream = key.data, key.fileobj
            written = os.read(key.fd, 65536)
            *lines, self._unfinished[name] = (self._unfinished.get(name, b"") + written).split(b"\n")
            for line in lines:
                print(f"{name:<{self._width}} | {line.decode(errors='replace')}", flush=True)
            if not written:
                self._selector.unregister(stream)


def answers_http(port: int, path: str) -> bool:
    """Whether a GET of `path` is answered with 200."""
    connection = http.client.HTTPConnection(ADDRESS, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def answers_redis(port: int) -> bool:
    """Whether Redis answers a ping."""
    try:
        with socket.create_connection((ADDRESS, port), timeout=5) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def redis_part(port: int, *, memory: str) -> Part:
    """Build a cache without disk, that drops the least used."""
    executable = shutil.which("redis-server")
    if executable is None:
        raise StackFailed("redis-server is not installed (Debian: apt install redis-server)")
    flags = ["--bind", ADDRESS, "--port", str(port), "--save", "", "--appendonly", "no"]
    flags += ["--maxmemory", memory, "--maxmemory-policy", "allkeys-lru", "--loglevel", "warning"]
    return Part("redis", [executable, *flags], {}, lambda: answers_redis(port))


def triton_part(repository: Path, port: int) -> Part:
    """Build the launcher on three ports from `port` on."""
    command = [sys.executable, str(ROOT / "deploy" / "triton" / "launch.py"), "--repository", str(repository)]
    ports = ["--http-port", str(port), "--grpc-port", str(port + 1), "--metrics-port", str(port + 2)]
    return Part("triton", [*command, *ports], {}, lambda: answers_http(port, "/v2/health/ready"))


def gateway_part(number: int, port: int, variables: dict[str, str]) -> Part:
    """Build one stateless gateway."""
    ports = {"OVSAM_PORT": str(port), "OVSAM_GRPC_PORT": str(port + GRPC_PORT_DISTANCE)}
    own = variables | ports | {"OVSAM_HOST": ADDRESS, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "service", "serve"]
    return Part(f"gateway{number}", command, own, lambda: answers_http(port, "/readyz"))


def main() -> int:
    """Run the stack until a signal; the exit code is 1 when a part did not start."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="stack: %(message)s", stream=sys.stdout)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    variables = {
        "OVSAM_MODEL_REPOSITORY": str(arguments.repository.resolve()),
        "OVSAM_TRITON_URL": f"{ADDRESS}:{arguments.triton_port + 1}",
        "OVSAM_REDIS_URL": f"redis://{ADDRESS}:{arguments.redis_port}/0",
    }
    ports = range(arguments.port, arguments.port + arguments.gateways)
    try:
        parts = [
            redis_part(arguments.redis_port, memory=arguments.redis_memory),
            triton_part(arguments.repository, arguments.triton_port),
            *(gateway_part(number, port, variables) for number, port in enumerate(ports, start=1)),
        ]
        Stack(parts).run("ready: " + " ".join(f"http://{ADDRESS}:{port}" for port in ports))
    except StackFailed as error:
        log.error("%s", error)  # noqa: TRY400 - the message is for the user, the trace is not
        return 1
    except KeyboardInterrupt:
        log.info("all parts have ended")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=ROOT / "model_repository", help="model repository to serve")
    parser.add_argument("--gateways", type=int, default=2, help="number of gateways")
    parser.add_argument("--port", type=int, default=8000, help="first gateway's HTTP port")
    parser.add_argument("--triton-port", type=int, default=8500, help="first of Triton's three ports")
    parser.add_argument("--redis-port", type=int, default=8600)
    parser.add_argument("--redis-memory", default="1gb", help="Redis drops the least used above this")
    return parser


if __name__ == "__main__":
    sys.exit(main())
