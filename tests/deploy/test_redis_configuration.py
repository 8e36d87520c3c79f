"""A real redis-server takes our configuration, and under pressure keeps what cannot be made again."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from tests.deploy.manifests import build, one


@pytest.fixture
def server(tmp_path: Path) -> Iterator["redis.Redis"]:
    """The StatefulSet's."""
    with _running(tmp_path, _configuration()) as client:
        yield client


def _configuration() -> str:
    text: str = one(build("cpu"), "ConfigMap", "ovsam-redis")["data"]["redis.conf"]
    return text


@contextmanager
def _running(folder: Path, configuration: str) -> Iterator["redis.Redis"]:
    """The command of the StatefulSet, with a folder of this test's and little memory."""
    assert "\ndir /data\n" in configuration
    (folder / "redis.conf").write_text(configuration.replace("dir /data", f"dir {folder}"))
    container = one(build("cpu"), "StatefulSet", "ovsam-redis")["spec"]["template"]["spec"]["containers"][0]
    places = {"/etc/redis/redis.conf": str(folder / "redis.conf"), "$(REDIS_PASSWORD)": "known"}
    command = [places.get(word, word) for word in container["command"]]
    socket = folder / "redis.sock"
    own = ["--port", "0", "--unixsocket", str(socket), "--maxmemory", "8mb"]
    process = subprocess.Popen([*command, *own], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with redis.Redis(unix_socket_path=str(socket), password="known") as client:
            _wait(socket, process)
            client.ping()
            yield client
    finally:
        process.terminate()
        process.wait(20)


def _wait(socket: Path, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + 20
    while not socket.exists():
        assert process.poll() is None, "redis-server refuses its configuration"
        assert time.monotonic() < end, "redis-server does not start"
        time.sleep(0.05)


def test_embeddings_are_evicted_and_vocabularies_are_not(server: "redis.Redis") -> None:
    assert _keeps_vocabularies(server)
    assert 0 < len(list(server.scan_iter("embedding:*"))) < 20


def _keeps_vocabularies(server: "redis.Redis") -> bool:
    """Whether ten small vocabularies outlive embeddings of more than twice the memory."""
    for index in range(10):
        server.hset(f"vocabulary:{index}", "mine", b"names")
    for index in range(20):
        server.hset(f"embedding:{index}", "mask", bytes(2**20))
        server.expire(f"embedding:{index}", 86_400)
    return len(list(server.scan_iter("vocabulary:*"))) == 10


@pytest.mark.usefixtures("server")
def test_callers_without_the_password_are_refused(tmp_path: Path) -> None:
    with (
        redis.Redis(unix_socket_path=str(tmp_path / "redis.sock")) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


@pytest.mark.parametrize(("old", "new"), [("volatile-lru", "volatile-lur"), ("maxmemory 4gb", "maxmemry 4gb")])
def test_a_damaged_configuration_is_caught(tmp_path: Path, old: str, new: str) -> None:
    configuration = _configuration()
    assert old in configuration
    with (
        pytest.raises(AssertionError, match="refuses its configuration"),
        _running(tmp_path, configuration.replace(old, new)),
    ):
        pass


def test_a_policy_that_evicts_vocabularies_is_caught(tmp_path: Path) -> None:
    with _running(tmp_path, _configuration().replace("volatile-lru", "allkeys-lru")) as client:
        assert not _keeps_vocabularies(client)
