"""What engines inside this process share: worker threads, deadlines, cancellation, probes. A runtime only computes."""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from service.adapters.manifest import GraphSpec, InvalidRepository, Repository, TensorSpec
from service.adapters.probe import ProbeRecord, probe_inputs
from service.core.errors import BackendUnavailable, DeadlineExceeded
from service.core.singleflight import SingleFlight
from service.core.spec import MODEL_NAMES, ModelName, ModelSpec
from service.core.types import Array, Tensors

Session = Callable[[Tensors], dict[str, Array]]


class EmbeddedBackend:
    """Sessions over one repository; each call runs in a worker thread, at most `workers` at a time.

    A session answers with all outputs by name, in the order of config.pbtxt, and is called from several threads at
    once; `failures` are the errors by which it says that it cannot.
    """

    def __init__(
        self,
        repository: Repository,
        sessions: Mapping[ModelName, Session],
        *,
        failures: tuple[type[Exception], ...],
        workers: int,
    ) -> None:
        self._repository = repository
        self._sessions = dict(sessions)
        self._failures = failures
        self._probes: SingleFlight[None] = SingleFlight()
        self._record = ProbeRecord()
        self._executor = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="model")

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
                return session(inputs)
            except self._failures as error:
                raise BackendUnavailable(f"the {model} failed") from error

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


def require_agreement(spec: GraphSpec, *, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]) -> None:
    """Raise InvalidRepository when a graph's own inputs and outputs differ from its config.pbtxt."""
    for kind, config, graph in (("input", spec.inputs, inputs), ("output", spec.outputs, outputs)):
        _compare(f"{spec.path}: {kind}", config, graph)


def _compare(where: str, config: Mapping[str, TensorSpec], graph: Mapping[str, TensorSpec]) -> None:
    if set(config) != set(graph):
        raise InvalidRepository(f"{where}s are {sorted(config)} in config.pbtxt, {sorted(graph)} in the graph")
    for name, tensor in graph.items():
        wanted = config[name]
        fits = len(wanted.shape) == len(tensor.shape) and all(
            -1 in pair or pair[0] == pair[1] for pair in zip(wanted.shape, tensor.shape, strict=True)
        )
        if wanted.type != tensor.type or not fits:
            raise InvalidRepository(
                f"{where} {name} is {wanted.type} {list(wanted.shape)} in config.pbtxt, "
                f"{tensor.type} {list(tensor.shape)} in the graph"
            )
