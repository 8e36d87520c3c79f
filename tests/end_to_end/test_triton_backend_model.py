"""Our python-based `onnxruntime` backend inside a real tritonserver, asked over gRPC as the gateway asks it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc.aio as triton_grpc
from numpy.typing import NDArray
from onnx import helper
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.end_to_end import triton_models as models
from tests.end_to_end.triton_server import TritonProcess, running_triton
from tests.onnx_models import FLOAT, FLOAT16, tensor, write_config, write_model

Array = NDArray[np.generic]
DELAYED = "dynamic_batching { max_queue_delay_microseconds: 30000 }"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of every kind that the backend must serve."""
    folder = tmp_path_factory.mktemp("repository")
    models.write_sum_and_difference(folder, extra=DELAYED)
    models.write_sum_and_difference(folder, "production")
    models.write_types(folder)
    models.write_lookup(folder, extra=DELAYED)
    models.write_slow(folder)
    return folder


@pytest.fixture(scope="module")
def triton(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonProcess]:
    """One server for all tests of this file."""
    with running_triton(repository, tmp_path_factory.mktemp("log")) as process:
        yield process


@asynccontextmanager
async def client_of(triton: TritonProcess) -> AsyncIterator[triton_grpc.InferenceServerClient]:
    client = triton_grpc.InferenceServerClient(triton.url)
    try:
        yield client
    finally:
        await client.close()


async def infer(
    client: triton_grpc.InferenceServerClient,
    model: str,
    tensors: Mapping[str, Array],
    outputs: Sequence[str] | None = None,
) -> dict[str, Array]:
    """Ask for `outputs` (all when None) and return what came."""
    inputs = []
    for name, array in tensors.items():
        tensor = triton_grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    wanted = None if outputs is None else [triton_grpc.InferRequestedOutput(name) for name in outputs]
    result = await client.infer(model, inputs, outputs=wanted)
    return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}


async def executions_of(client: triton_grpc.InferenceServerClient, model: str) -> int:
    """How often the graph has run so far."""
    count: int = (await client.get_inference_statistics(model)).model_stats[0].execution_count
    return count


def row(*values: float) -> NDArray[np.float32]:
    return np.array([values], np.float32)


def test_each_type_and_open_axis_comes_back_as_sent(triton: TritonProcess) -> None:
    """float16, uint8, int64 and int32 keep values, shapes and types; a model without batching takes any shape."""
    tensors: dict[str, Array] = {
        "half": np.array([[0.5, -65504.0, np.inf]], np.float16),
        "byte": np.arange(256, dtype=np.uint8).reshape(16, 16),
        "long": np.array([[2**62], [-(2**62)]], np.int64),
        "int": np.zeros((0, 4), np.int32),
    }

    async def ask() -> dict[str, Array]:
        async with client_of(triton) as client:
            return await infer(client, "types", tensors)

    answer = asyncio.run(ask())
    for name, sent in tensors.items():
        assert answer[f"{name}_out"].dtype == sent.dtype
        np.testing.assert_array_equal(answer[f"{name}_out"], sent)


def test_large_tensors_pass_through_the_stub(triton: TritonProcess) -> None:
    """32 MB in and out: far beyond the megabyte of shared memory that a stub starts with."""
    big = np.random.default_rng(0).random((1, 4_000_000), np.float32)

    async def ask() -> dict[str, Array]:
        async with client_of(triton) as client:
            return await infer(client, "arithmetic", {"a": big, "b": big})

    np.testing.assert_array_equal(asyncio.run(ask())["sum"], big + big)


def test_concurrent_requests_share_executions_and_keep_their_answers(triton: TritonProcess) -> None:
    """Requests of one and of two rows are batched, and each gets its own rows back."""

    async def ask() -> tuple[list[dict[str, Array]], int]:
        async with client_of(triton) as client:
            before = await executions_of(client, "arithmetic")
            rows = [1 + i % 2 for i in range(40)]
            requests = [{"a": np.full((n, 3), i, np.float32), "b": row(1, 2, 3)[[0] * n]} for i, n in enumerate(rows)]
            answers = await asyncio.gather(*(infer(client, "arithmetic", tensors) for tensors in requests))
            return list(answers), await executions_of(client, "arithmetic") - before

    answers, executions = asyncio.run(ask())
    for i, answer in enumerate(answers):
        np.testing.assert_array_equal(answer["sum"], [[i + 1, i + 2, i + 3]] * (1 + i % 2))
        np.testing.assert_array_equal(answer["difference"], [[i - 1, i - 2, i - 3]] * (1 + i % 2))
    assert executions < len(answers) / 2


def test_each_request_of_a_batch_gets_the_outputs_it_asked_for(triton: TritonProcess) -> None:
    """The graph computes what anyone in the batch wants; nobody receives what another asked for."""
    wanted: list[list[str] | None] = [["sum"], ["difference"], ["difference", "sum"], None]

    async def ask() -> list[dict[str, Array]]:
        async with client_of(triton) as client:
            return await asyncio.gather(
                *(infer(client, "arithmetic", {"a": row(5), "b": row(3)}, outputs) for outputs in wanted)
            )

    only_sum, only_difference, both, everything = asyncio.run(ask())
    assert only_sum == {"sum": 8}
    assert only_difference == {"difference": 2}
    assert set(both) == set(everything) == {"sum", "difference"}


def test_a_failing_request_fails_alone_and_the_stub_survives(triton: TritonProcess) -> None:
    """An index outside the table is that caller's error, also inside a batch."""
    stub = triton.stub("lookup")

    async def ask() -> list[dict[str, Array] | BaseException]:
        async with client_of(triton) as client:
            indices = [np.array([[index]], np.int64) for index in (1, 99, 4)]
            requests = [infer(client, "lookup", {"index": index}) for index in indices]
            return await asyncio.gather(*requests, return_exceptions=True)

    first, failed, last = asyncio.run(ask())
    assert isinstance(first, dict)
    assert isinstance(last, dict)
    np.testing.assert_array_equal([first["value"], last["value"]], [[[10]], [[40]]])
    assert isinstance(failed, InferenceServerException)
    assert failed.status() == "StatusCode.INVALID_ARGUMENT"
    assert "99" in failed.message()
    assert triton.stub("lookup") == stub


def test_cancelled_requests_are_not_computed(triton: TritonProcess) -> None:
    """While one long request runs, six more are cancelled: the next one does not wait for them."""

    async def timed(work: Awaitable[object]) -> float:
        started = time.perf_counter()
        await work
        return time.perf_counter() - started

    async def ask() -> tuple[float, float]:
        async with client_of(triton) as client:
            repeats = {"repeats": np.array([[150]])}
            await infer(client, "slow", repeats)
            one = await timed(infer(client, "slow", repeats))
            running = asyncio.create_task(infer(client, "slow", repeats))
            await asyncio.sleep(one / 4)
            waiting = [asyncio.create_task(infer(client, "slow", repeats)) for _ in range(6)]
            await asyncio.sleep(one / 4)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            await running
            return one, await timed(infer(client, "slow", {"repeats": np.array([[1]])}))

    one, after = asyncio.run(ask())
    assert after < 3 * one


def test_bursts_are_answered_without_a_stall(triton: TritonProcess) -> None:
    """With the production scheduler settings no burst waits the half second that a queue policy costs."""

    async def burst(client: triton_grpc.InferenceServerClient) -> float:
        started = asyncio.get_running_loop().time()
        await asyncio.gather(*(infer(client, "production", {"a": row(i), "b": row(1)}) for i in range(12)))
        return asyncio.get_running_loop().time() - started

    async def ask() -> list[float]:
        async with client_of(triton) as client:
            await burst(client)
            return [await burst(client) for _ in range(40)]

    stalls = [seconds for seconds in asyncio.run(ask()) if seconds > 0.4]
    assert len(stalls) <= 1, stalls


@pytest.mark.parametrize(
    ("written", "declared", "message"),
    [
        (
            ("x", FLOAT, "b", 4),
            ("x", FLOAT16, "b", 4),
            "'x': config.pbtxt says TYPE_FP16, the graph tensor(float)",
        ),
        (("x", FLOAT, "b", 4), ("z", FLOAT, "b", 4), "the graph's input ['x'] is not in config.pbtxt"),
        (
            ("x", FLOAT, "b", 4),
            ("x", FLOAT, "b", 5),
            "shape [-1, 5] (batch axis included), the graph [-1, 4]",
        ),
        (
            ("x", FLOAT, 3, 4),
            ("x", FLOAT, "b", 4),
            "shape [-1, 4] (batch axis included), the graph [3, 4]",
        ),
    ],
    ids=["type", "name", "shape", "batch axis"],
)
def test_a_config_that_differs_from_the_graph_is_refused_at_load(
    triton: TritonProcess,
    repository: Path,
    request: pytest.FixtureRequest,
    written: tuple[str, int, str | int, int],
    declared: tuple[str, int, str | int, int],
    message: str,
) -> None:
    """The load fails and says the difference; the other models go on serving."""
    folder = repository / f"wrong_{request.node.callspec.id.replace(' ', '_')}"
    name, kind, *shape = written
    input_, output = tensor(name, kind, *shape), tensor("y", kind, *shape)
    write_model(folder, [helper.make_node("Identity", [name], ["y"])], [input_], [output])
    write_config(folder, [tensor(declared[0], declared[1], *declared[2:])], [output])

    async def ask() -> None:
        async with client_of(triton) as client:
            with pytest.raises(InferenceServerException) as refused:
                await client.load_model(folder.name)
            assert message in refused.value.message()
            assert (await infer(client, "arithmetic", {"a": row(1), "b": row(1)}))["sum"] == 2

    asyncio.run(ask())
