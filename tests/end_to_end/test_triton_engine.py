"""The Triton engine while real servers die, hang, come back and load new versions."""

import asyncio
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc.aio as triton_grpc

from service.adapters.manifest import Repository, read_repository
from service.adapters.shared_slots import SlotLimits
from service.adapters.triton_backend import TritonBackend
from service.core.errors import BackendUnavailable, DeadlineExceeded, ServiceError
from service.core.types import Array
from tests.end_to_end.triton_server import QUICK_PROBES, READY, TritonProcess, left_in_shared_memory, running_triton
from tests.tiny_repository import write_tiny_repository

UNWATCHED = ("--probe-interval", "600", "--exit-timeout", "3")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    write_tiny_repository(tmp_path / "repository")
    return read_repository(tmp_path / "repository")


@pytest.fixture
def triton(repository: Repository, tmp_path: Path) -> Iterator[TritonProcess]:
    with running_triton(repository.folder, tmp_path, QUICK_PROBES) as process:
        yield process


@asynccontextmanager
async def engine_of(
    repository: Repository, urls: Sequence[str], *, slots: SlotLimits | None = None
) -> AsyncIterator[TritonBackend]:
    backend = TritonBackend(repository, urls, slots=slots)
    try:
        yield backend
    finally:
        await backend.close()


def prompts(seed: int = 0) -> dict[str, Array]:
    return {
        "image_embedding": np.zeros((1, 3, 16, 16), np.float16),
        "point_coords": np.full((1, 1, 1, 2), seed, np.float32),
        "point_labels": np.ones((1, 1, 1), np.int32),
        "mask_input": np.zeros((1, 1, 1, 1), np.float32),
        "has_mask_input": np.zeros((1, 1), np.float32),
    }


class Traffic:
    """Clicks without pause, each checked, and what became of them."""

    def __init__(self, backend: TritonBackend, *, offset: float = 0.0, clients: int = 4) -> None:
        self.outcomes: Counter[str] = Counter()
        self.slowest = 0.0
        self._backend, self._offset, self._clients = backend, offset, clients

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator["Traffic"]:
        tasks = [asyncio.create_task(self._click(number)) for number in range(self._clients)]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(result, asyncio.CancelledError), result

    async def _click(self, number: int) -> None:
        while True:
            started = time.monotonic()
            try:
                answer = await self._backend.run("prompt_decoder", prompts(number), timeout=3.0)
                assert answer["mask_logits"][0, 0, 0, 0] == 2 * number + self._offset
                self.outcomes["answered"] += 1
            except ServiceError as error:
                self.outcomes[type(error).__name__] += 1
                await asyncio.sleep(0.05)
            self.slowest = max(self.slowest, time.monotonic() - started)

    async def answered(self, count: int, *, timeout: float = 40.0) -> None:
        """Wait for `count` further answers."""
        wanted = self.outcomes["answered"] + count
        async with asyncio.timeout(timeout):
            while self.outcomes["answered"] < wanted:  # noqa: ASYNC110 - the clicks count, they signal nothing
                await asyncio.sleep(0.02)


async def until_probe(backend: TritonBackend, *, passes: bool, timeout: float = 30.0) -> float:
    """Wait until the probe passes (or fails); the seconds that took."""
    started = time.monotonic()
    async with asyncio.timeout(timeout):
        while True:
            try:
                await backend.probe()
                passed = True
            except BackendUnavailable:
                passed = False
            if passed is passes:
                return time.monotonic() - started
            await asyncio.sleep(0.1)


async def until_probe_says(backend: TritonBackend, reason: str, *, timeout: float = 30.0) -> None:
    """Wait until the probe fails for that reason; a channel rests for a second before it connects anew."""
    said = ""
    deadline = time.monotonic() + timeout
    while reason not in said:
        assert time.monotonic() < deadline, said
        try:
            await backend.probe()
            said = "nothing"
        except BackendUnavailable as error:
            said = str(error)
        await asyncio.sleep(0.1)


async def test_a_killed_server_fails_clean_and_comes_back_by_itself(
    triton: TritonProcess, repository: Repository
) -> None:
    """Callers get BackendUnavailable at once, readiness turns false, and all is well after the restart."""
    async with engine_of(repository, [triton.url]) as backend, Traffic(backend).flowing() as traffic:
        await traffic.answered(50)
        await backend.probe()
        os.kill(triton.server, signal.SIGKILL)
        assert await until_probe(backend, passes=False) < 3
        await until_probe(backend, passes=True)
        await traffic.answered(50)
    assert set(traffic.outcomes) <= {"answered", "BackendUnavailable"}
    assert traffic.slowest < 3.5


async def test_a_killed_stub_fails_clean_and_comes_back_by_itself(
    triton: TritonProcess, repository: Repository
) -> None:
    """Triton calls the dead model ready; our probe does not."""
    async with engine_of(repository, [triton.url]) as backend, Traffic(backend).flowing() as traffic:
        await traffic.answered(50)
        os.kill(triton.stub("prompt_decoder"), signal.SIGKILL)
        assert await until_probe(backend, passes=False) < 5
        await until_probe(backend, passes=True)
        await traffic.answered(50)
    assert set(traffic.outcomes) <= {"answered", "BackendUnavailable", "DeadlineExceeded"}


async def test_a_hung_server_costs_each_caller_no_more_than_its_deadline(
    repository: Repository, tmp_path: Path
) -> None:
    """A stopped server is cut off by the deadline, then by the breaker, and used again when it goes on."""
    with running_triton(repository.folder, tmp_path, UNWATCHED) as triton:
        async with engine_of(repository, [triton.url]) as backend:
            await backend.run("prompt_decoder", prompts())
            server = triton.server
            os.kill(server, signal.SIGSTOP)
            try:
                for _ in range(3):
                    started = time.monotonic()
                    with pytest.raises(DeadlineExceeded):
                        await backend.run("prompt_decoder", prompts(), timeout=1.0)
                    assert time.monotonic() - started < 1.5
                started = time.monotonic()
                with pytest.raises(BackendUnavailable):
                    await backend.run("prompt_decoder", prompts(), timeout=1.0)
                assert time.monotonic() - started < 0.1
            finally:
                os.kill(server, signal.SIGCONT)
            await until_probe(backend, passes=True)
            await backend.run("prompt_decoder", prompts(), timeout=5.0)


async def test_with_two_servers_no_call_fails_when_one_dies(repository: Repository, tmp_path: Path) -> None:
    """The call under way is sent once more, to the other server; readiness stays true."""
    with (
        running_triton(repository.folder, tmp_path, UNWATCHED) as first,
        running_triton(repository.folder, tmp_path, UNWATCHED) as second,
    ):
        async with engine_of(repository, [first.url, second.url]) as backend, Traffic(backend).flowing() as traffic:
            await traffic.answered(50)
            os.kill(first.server, signal.SIGKILL)
            await backend.probe()
            await traffic.answered(200)
        assert set(traffic.outcomes) == {"answered"}


async def test_with_two_servers_a_hung_one_leaves_time_for_the_other(repository: Repository, tmp_path: Path) -> None:
    """Half of the deadline is kept for the second server."""
    with (
        running_triton(repository.folder, tmp_path, UNWATCHED) as first,
        running_triton(repository.folder, tmp_path, UNWATCHED) as second,
    ):
        async with engine_of(repository, [first.url, second.url]) as backend, Traffic(backend).flowing() as traffic:
            await traffic.answered(50)
            server = first.server
            os.kill(server, signal.SIGSTOP)
            try:
                await traffic.answered(200)
            finally:
                os.kill(server, signal.SIGCONT)
        assert set(traffic.outcomes) == {"answered"}


async def test_a_server_of_another_model_is_not_ready(triton: TritonProcess, tmp_path: Path) -> None:
    """The gateway's manifest and the server's models must be of one kind."""
    other = tmp_path / "other"
    write_tiny_repository(other)
    config = other / "prompt_decoder" / "config.pbtxt"
    config.write_text(config.read_text().replace('"boxes" data_type: TYPE_FP32', '"boxes" data_type: TYPE_FP16'))
    async with engine_of(read_repository(other), [triton.url]) as backend:
        with pytest.raises(
            BackendUnavailable, match=r"serves another prompt_decoder .*: its tensors \['boxes'\] are other"
        ):
            await backend.probe()
        with pytest.raises(BackendUnavailable, match="does not fit the manifest"):
            await backend.run("prompt_decoder", prompts())


async def test_a_version_loaded_under_load_fails_nobody_and_mixes_nothing(
    triton: TritonProcess, repository: Repository
) -> None:
    """A gateway stays on the version of its manifest while the next is loaded; one started then uses the next."""
    async with engine_of(repository, [triton.url]) as old, Traffic(old).flowing() as traffic:
        await traffic.answered(50)
        write_tiny_repository(repository.folder, version=2, offset=1000.0)
        client = triton_grpc.InferenceServerClient(triton.url)
        for model in repository.graphs:
            await client.load_model(model)
        await client.close()
        await traffic.answered(100)
        fresh = read_repository(repository.folder)
        assert fresh.spec.revision != repository.spec.revision
        async with engine_of(fresh, [triton.url]) as new:
            await new.probe()
            async with Traffic(new, offset=1000.0).flowing() as new_traffic:
                await asyncio.gather(traffic.answered(100), new_traffic.answered(100))
    assert set(traffic.outcomes) == set(new_traffic.outcomes) == {"answered"}


async def test_other_files_under_the_same_version_are_found_out(triton: TritonProcess, repository: Repository) -> None:
    """A server restarted with a graph of another digest answers nobody, even though all tensors look the same."""
    async with engine_of(repository, [triton.url]) as backend, Traffic(backend).flowing() as traffic:
        await traffic.answered(20)
        shutil.rmtree(repository.folder)
        write_tiny_repository(repository.folder, offset=1000.0)
        os.kill(triton.server, signal.SIGKILL)
        await asyncio.to_thread(triton.wait_for, READY, times=2)
        refused = traffic.outcomes["BackendUnavailable"]
        await until_probe_says(backend, "another digest")
        await asyncio.sleep(3)
        assert traffic.outcomes["BackendUnavailable"] > refused
        assert set(traffic.outcomes) == {"answered", "BackendUnavailable"}


async def test_slots_are_registered_anew_with_a_restarted_server(triton: TritonProcess, repository: Repository) -> None:
    """The new server does not know our memory: nobody fails for that, and slots are used again."""
    slots = SlotLimits(count=2, size=2**20, least=0)
    async with engine_of(repository, [triton.url], slots=slots) as backend:
        await backend.probe()
        async with Traffic(backend).flowing() as traffic:
            await traffic.answered(50)
        assert await regions_of(triton) == 1
        os.kill(triton.server, signal.SIGKILL)
        await asyncio.to_thread(triton.wait_for, READY, times=2)
        await until_probe(backend, passes=True)
        async with Traffic(backend).flowing() as traffic:
            await traffic.answered(50)
        assert set(traffic.outcomes) == {"answered"}
        assert await regions_of(triton) == 1
    assert await regions_of(triton) == 0
    assert not left_in_shared_memory(f"ovsam_{os.getpid()}_")


async def test_a_thousand_calls_half_of_them_cancelled_corrupt_nothing_and_lose_no_slot(
    triton: TritonProcess, repository: Repository
) -> None:
    """Slots are reused only when the server is done with them: each answer fits its own prompt."""
    pool_size = 4
    random = np.random.default_rng(0)

    async def click(backend: TritonBackend, number: int) -> None:
        answer = await backend.run("prompt_decoder", prompts(number), timeout=30.0)
        assert answer["mask_logits"][0, 0, 0, 0] == 2 * number

    async with engine_of(repository, [triton.url], slots=SlotLimits(count=pool_size, size=2**20, least=0)) as backend:
        for start in range(0, 1000, 50):
            tasks = [asyncio.create_task(click(backend, start + i)) for i in range(50)]
            for task in tasks[::2]:
                await asyncio.sleep(float(random.random()) * 0.004)
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert not [result for result in results[1::2] if result is not None]
        async with asyncio.timeout(10):
            while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 - calls in slots end with the server's answer
                await asyncio.sleep(0.01)
        assert backend.free_slots == pool_size


async def regions_of(triton: TritonProcess) -> int:
    """Regions of client memory that the server has mapped."""
    client = triton_grpc.InferenceServerClient(triton.url)
    status = await client.get_system_shared_memory_status()
    await client.close()
    return len(status.regions)
