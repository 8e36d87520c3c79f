"""Real redis-server processes on TCP ports of their own: members of clusters, primaries, replicas and Sentinels."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from tests.certificates import Certificates
from tests.ports import free_port

MASTER = "embeddings"


@dataclass(frozen=True, slots=True)
class RedisNode:
    """One redis-server process and its port."""

    port: int
    process: "subprocess.Popen[bytes]"

    def client(self) -> "redis.Redis":
        return redis.Redis(port=self.port)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def redis_node(
    folder: Path, *options: str, configuration: Path | None = None, tls: Certificates | None = None
) -> Iterator[RedisNode]:
    """A redis-server that accepts connections: over TLS only, of clients with a certificate, where `tls` is given."""
    port = free_port()
    folder.mkdir()
    ports = ["--port", str(port)] if tls is None else ["--port", "0", "--tls-port", str(port), *_tls_options(tls)]
    start = ["redis-server", *([str(configuration)] if configuration else []), *ports, "--dir", str(folder)]
    process = subprocess.Popen([*start, *options, "--bind", "127.0.0.1"], stdout=subprocess.DEVNULL)
    try:
        until(lambda: _accepts(port))
        yield RedisNode(port, process)
    finally:
        process.kill()
        process.wait()


@contextmanager
def sentinels(folder: Path, names: Sequence[str], *lines: str, tls: Certificates | None = None) -> Iterator[list[int]]:
    """The ports of Sentinels of these names, each with the configuration `lines`."""
    with ExitStack() as stack:
        ports = []
        for name in names:
            configuration = folder / f"{name}.conf"  # a Sentinel writes what it learns into a file of its own
            configuration.write_text("\n".join(lines) + "\n")
            node = redis_node(folder / name, "--sentinel", configuration=configuration, tls=tls)
            ports.append(stack.enter_context(node).port)
        yield ports


def until(holds: Callable[[], bool], *, seconds: float = 20.0) -> None:
    """Wait until a call returns true; a server that does not answer yet is no failure."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if holds():
                return
        except (redis.RedisError, OSError):
            pass
        time.sleep(0.05)
    raise TimeoutError("it did not come to hold")


def _accepts(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True


def _tls_options(made: Certificates) -> list[str]:
    files = ["--tls-cert-file", str(made.server), "--tls-key-file", str(made.server_key)]
    return [*files, "--tls-ca-cert-file", str(made.authority), "--tls-replication", "yes"]
