"""A real redis-server takes our configuration, and under pressure keeps what cannot be made again."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.deploy.manifests import build, one


@pytest.fixture
def server(tmp_path: Path) -> Iterator["redis.Redis"]:
    """The command of the StatefulSet, with a folder of this test's and little memory."""
    objects = build("cpu")
    configuration = one(objects, "ConfigMap", "ovsam-redis")["data"]["redis.conf"]
    assert "\ndir /data\n" in configuration
    (tmp_path / "redis.conf").write_text(configuration.replace("dir /data", f"dir {tmp_path}"))
    container = one(objects, "StatefulSet", "ovsam-redis")["spec"]["template"]["spec"]["containers"][0]
    places = {"/etc/redis/redis.conf": str(tmp_path / "redis.conf"), "$(REDIS_PASSWORD)": "known"}
    command = [places.get(word, word) for word in container["command"]]
    socket = tmp_path / "redis.sock"
    own = ["--port", "0", "--unixsocket", str(socket), "--maxmemory", "8mb"]
    process = subprocess.Popen([*command, *own], stdout=subprocess.DEVNULL)
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
    server.hset("vocabulary", "mine", b"names")
    for index in range(20):
        server.hset(f"embedding:{index}", "mask", bytes(2**20))
        server.expire(f"embedding:{index}", 86_400)
    assert server.hget("vocabulary", "mine") == b"names"
    assert 0 < len(list(server.scan_iter("embedding:*"))) < 20


@pytest.mark.usefixtures("server")
def test_callers_without_the_password_are_refused(tmp_path: Path) -> None:
    with (
        redis.Redis(unix_socket_path=str(tmp_path / "redis.sock")) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()
