"""The launcher and its supervisor with real processes that are killed, stopped and refused."""

import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end import triton_models as models
from tests.end_to_end.triton_server import (
    QUICK_PROBES,
    READY,
    ROOT,
    START_TIMEOUT,
    TritonProcess,
    running_triton,
    start_triton,
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, so that one can die beside a healthy one."""
    folder = tmp_path_factory.mktemp("repository")
    models.write_sum_and_difference(folder)
    models.write_slow(folder)
    return folder


@pytest.fixture
def triton(repository: Path, tmp_path: Path) -> Iterator[TritonProcess]:
    """Give each test a server of its own: they break it."""
    with running_triton(repository, tmp_path) as process:
        yield process


def ask(triton: TritonProcess, *, timeout: float = 5.0) -> str:
    """Send one tiny request over HTTP; the body of the answer, or raises OSError."""
    tensor = '{{"name": "{}", "shape": [1, 1], "datatype": "FP32", "data": [2]}}'
    body = f'{{"inputs": [{tensor.format("a")}, {tensor.format("b")}]}}'.encode()
    url = f"http://127.0.0.1:{triton.http_port}/v2/models/arithmetic/infer"
    with urllib.request.urlopen(url, body, timeout=timeout) as answer:
        text: str = answer.read().decode()
        return text


def test_says_where_it_listens_and_ends_in_time_without_traces(triton: TritonProcess) -> None:
    """One SIGTERM ends launcher, server and stubs; nothing stays in /dev/shm."""
    assert f"ready: grpc {triton.url}" in triton.log.read_text()
    assert '"data":[4.0]' in ask(triton)
    pids = [triton.server, triton.stub("arithmetic"), triton.stub("slow")]
    assert triton.shared_memory()
    started = time.monotonic()
    assert triton.end() == 0
    assert time.monotonic() - started < 8
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert not triton.shared_memory()


def test_interrupt_ends_it_like_a_termination(triton: TritonProcess) -> None:
    """Ctrl-C reaches the launcher alone, which ends the server in order."""
    server = triton.server
    assert triton.end(signal.SIGINT) == 0
    assert not Path(f"/proc/{server}").exists()
    assert not triton.shared_memory()


def test_a_killed_stub_is_noticed_and_its_model_reloaded(triton: TritonProcess) -> None:
    """Triton itself calls the model ready all the time; the other model is left alone."""
    neighbour = triton.stub("slow")
    os.kill(triton.stub("arithmetic"), signal.SIGKILL)
    triton.wait_for_recovery()
    assert '"data":[4.0]' in ask(triton)
    if triton.count(READY) == 1:  # the server itself lived on
        assert triton.stub("slow") == neighbour


def test_a_stub_killed_under_traffic_is_noticed_too(triton: TritonProcess) -> None:
    """Failing requests must not pass for the progress that spares a probe."""
    stop = threading.Event()

    def traffic() -> None:
        while not stop.is_set():
            try:
                ask(triton)
            except (OSError, urllib.error.HTTPError):
                time.sleep(0.01)

    clients = [threading.Thread(target=traffic) for _ in range(3)]
    for client in clients:
        client.start()
    try:
        os.kill(triton.stub("arithmetic"), signal.SIGKILL)
        triton.wait_for_recovery()
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert '"data":[4.0]' in ask(triton)


def test_a_hung_stub_is_replaced(triton: TritonProcess) -> None:
    """A stopped stub answers nothing; its model serves again without anybody's help."""
    os.kill(triton.stub("arithmetic"), signal.SIGSTOP)
    triton.wait_for("reloading 'arithmetic'")
    triton.wait_for_recovery()
    assert '"data":[4.0]' in ask(triton)


def test_a_killed_server_is_restarted(triton: TritonProcess) -> None:
    """A new server on the same ports; the shared memory of the old one is gone."""
    old = set(triton.shared_memory())
    os.kill(triton.server, signal.SIGKILL)
    triton.wait_for(READY, times=2)
    assert '"data":[4.0]' in ask(triton)
    assert not old & set(triton.shared_memory())


def test_a_hung_server_is_restarted(triton: TritonProcess) -> None:
    """A stopped server does not even answer the supervisor's questions."""
    server = triton.server
    os.kill(server, signal.SIGSTOP)
    triton.wait_for(READY, times=2, timeout=90)
    assert triton.server != server
    assert '"data":[4.0]' in ask(triton)


def test_a_busy_model_is_not_taken_for_a_dead_one(triton: TritonProcess) -> None:
    """A probe that waits behind long work counts for nothing while that work makes progress."""
    body = b'{"inputs": [{"name": "repeats", "shape": [1, 1], "datatype": "INT64", "data": [300]}]}'
    url = f"http://127.0.0.1:{triton.http_port}/v2/models/slow/infer"
    clients = [threading.Thread(target=lambda: urllib.request.urlopen(url, body).read()) for _ in range(30)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert triton.count("reloading") == 0


def test_a_killed_launcher_takes_the_server_along(repository: Path, tmp_path: Path) -> None:
    """The server ends with its launcher, and the next launcher clears what both left."""
    with running_triton(repository, tmp_path) as triton:
        server = triton.server
        triton.end(signal.SIGKILL)
        deadline = time.monotonic() + 20
        while Path(f"/proc/{server}").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not Path(f"/proc/{server}").exists()
        with running_triton(repository, tmp_path):
            assert not triton.shared_memory()


def test_a_refused_model_ends_the_first_start_with_its_reason(tmp_path: Path) -> None:
    """A fault of the repository is said in one line, not retried for ever."""
    models.write_sum_and_difference(tmp_path / "repository")
    path = tmp_path / "repository" / "arithmetic" / "config.pbtxt"
    path.write_text(path.read_text().replace("FP32", "INT64"))
    triton = start_triton(tmp_path / "repository", tmp_path)
    assert triton.launcher.wait(START_TIMEOUT) == 1
    log = triton.log.read_text()
    assert "'arithmetic' was refused" in log
    assert "config.pbtxt says TYPE_INT64, the graph tensor(float)" in log
    assert READY not in log
    assert not triton.shared_memory()


def test_serves_the_models_that_are_named_alone(repository: Path, tmp_path: Path) -> None:
    """The others of the repository are not loaded, and not missed."""
    with running_triton(repository, tmp_path, (*QUICK_PROBES, "--models", "arithmetic")) as triton:
        assert "models: arithmetic\n" in triton.log.read_text()
        assert '"data":[4.0]' in ask(triton)
        with pytest.raises(ValueError, match="empty"):
            triton.stub("slow")


def test_a_model_that_is_not_there_is_named(repository: Path, tmp_path: Path) -> None:
    """A misspelt name is told at once; the server would start without a model."""
    triton = start_triton(repository, tmp_path, ("--models", "arithmetic,geometry"))
    assert triton.launcher.wait(START_TIMEOUT) == 2
    assert "holds no model geometry" in triton.log.read_text()


def test_numpy_2_is_refused(repository: Path, tmp_path: Path) -> None:
    """The stub would return empty tensors with it, without any error."""
    environment = _environment_with_own_numpy(tmp_path / "environment")
    triton = start_triton(repository, tmp_path, (*QUICK_PROBES, "--environment", str(environment)))
    assert triton.launcher.wait(START_TIMEOUT) == 1
    assert "this stub returns empty tensors with numpy 2, use numpy<2" in triton.log.read_text()


def _environment_with_own_numpy(folder: Path) -> Path:
    """Make a server environment that is complete in all but numpy, which is the gateway's."""
    made = ROOT / "build" / "triton"
    folder.mkdir()
    for name in ("backends", "caches", "complete.json"):
        (folder / name).symlink_to(made / name)
    packages = next((made / "venv" / "lib").glob("python3*")) / "site-packages"
    own = folder / packages.relative_to(made)
    own.mkdir(parents=True)
    for package in packages.iterdir():
        if not package.name.startswith("numpy"):
            (own / package.name).symlink_to(package)
    for name in ("numpy", "numpy.libs"):
        (own / name).symlink_to(Path(np.__file__).parents[1] / name)
    (folder / "venv" / "bin").symlink_to(made / "venv" / "bin")
    (folder / "venv" / "pyvenv.cfg").symlink_to(made / "venv" / "pyvenv.cfg")
    return folder
