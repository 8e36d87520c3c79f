"""The embedded engine: ONNX Runtime in this process, over the same model repository that Triton serves."""

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from service.adapters.manifest import GraphSpec, InvalidRepository, Repository, TensorSpec
from service.adapters.probe import ProbeRecord, probe_inputs
from service.core.errors import BackendUnavailable, DeadlineExceeded
from service.core.singleflight import SingleFlight
from service.core.spec import MODEL_NAMES, ModelName, ModelSpec
from service.core.types import Array, Tensors

_ONNX_TYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(bool)": "bool",
}
_FAILURES = (
    ValueError,
    RuntimeError,
    ort_errors.EPFail,
    ort_errors.EngineError,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


class OnnxBackend:
    """Sessions over one repository; each call runs in a worker thread, at most `workers` at a time.

    Raises InvalidRepository when a graph and its config.pbtxt differ.
    """

    def __init__(self, repository: Repository, *, threads: int, workers: int) -> None:
        self._repository = repository
        self._sessions = {name: _open(repository.graphs[name], threads=threads) for name in MODEL_NAMES}
        self._probes: SingleFlight[None] = SingleFlight()
        self._record = ProbeRecord()
        self._executor = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="onnx")

    @property
    def spec(self) -> ModelSpec:
        """The repository's manifest."""
        return self._repository.spec

    async def run(self, model: ModelName, inputs: Tensors, *, timeout: float | None = None) -> dict[str, Array]:
        """Run one call. A call that waits when `timeout` ends is never started; one under way ends by itself."""
        end = None if timeout is None else time.monotonic() + timeout
        session = self._sessions[model]

        def call() -> dict[str, Array]:
            if end is not None and time.monotonic() > end:
                raise DeadlineExceeded(f"no time was left for the {model}")
            try:
                return dict(
                    zip(self._repository.graphs[model].outputs, session.run(outputs, dict(inputs)), strict=True)
                )
            except _FAILURES as error:
                raise BackendUnavailable(f"the {model} failed") from error

        outputs = list(self._repository.graphs[model].outputs)
        future = asyncio.get_running_loop().run_in_executor(self._executor, call)
        try:
            answer = await asyncio.shield(future)
        except asyncio.CancelledError:
            if not future.cancel():
                await asyncio.wait([future])  # a thread cannot be stopped: its slot is free only when it has ended
            raise
        except BackendUnavailable:
            self._record.failed(model)
            raise
        self._record.answered(model)
        return answer

    async def probe(self) -> None:
        """Run the smallest real inference of every model that has not answered lately; askers share one."""
        for name in MODEL_NAMES:
            if not self._record.fresh(name):
                await self._probes.run(name, partial(self._probe, name))

    async def _probe(self, name: ModelName) -> None:
        started = time.monotonic()
        await self.run(name, probe_inputs(self._repository.graphs[name], self.spec))
        self._record.took(name, time.monotonic() - started)

    async def close(self) -> None:
        """Wait for calls in hand and drop the sessions."""
        await asyncio.to_thread(self._executor.shutdown)
        self._sessions.clear()


def _open(graph: GraphSpec, *, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(graph.path), options, providers=_providers())
    except Exception as error:
        raise InvalidRepository(f"{graph.path} cannot be loaded: {error}") from error
    _compare(graph.path, "input", graph.inputs, {node.name: _tensor(node) for node in session.get_inputs()})
    _compare(graph.path, "output", graph.outputs, {node.name: _tensor(node) for node in session.get_outputs()})
    return session


def _providers() -> list[str]:
    """CUDA where the `gpu` extra is installed, then the CPU."""
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    return [name for name in wanted if name in ort.get_available_providers()]


def _tensor(node: ort.NodeArg) -> TensorSpec:
    shape = tuple(side if isinstance(side, int) else -1 for side in node.shape)
    return TensorSpec(type=_ONNX_TYPES.get(node.type, node.type), shape=shape)


def _compare(path: Path, kind: str, config: Mapping[str, TensorSpec], graph: Mapping[str, TensorSpec]) -> None:
    if set(config) != set(graph):
        raise InvalidRepository(f"{path}: config.pbtxt names the {kind}s {sorted(config)}, the graph {sorted(graph)}")
    for name, tensor in graph.items():
        wanted = config[name]
        fits = len(wanted.shape) == len(tensor.shape) and all(
            -1 in pair or pair[0] == pair[1] for pair in zip(wanted.shape, tensor.shape, strict=True)
        )
        if wanted.type != tensor.type or not fits:
            raise InvalidRepository(
                f"{path}: {kind} {name} is {wanted.type} {list(wanted.shape)} in config.pbtxt, "
                f"{tensor.type} {list(tensor.shape)} in the graph"
            )
