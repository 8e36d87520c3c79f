"""The model server engine: the same four graphs behind Triton's gRPC, on one or several servers."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial

import grpc

from service.adapters.manifest import Repository
from service.adapters.probe import probe_inputs
from service.adapters.shared_slots import SlotLimits
from service.adapters.triton_endpoint import CONFIG_SECONDS, OtherModel, TritonEndpoint, Wire, queue_was_full
from service.adapters.triton_identity import read_identity
from service.adapters.triton_messages import InferCall, InvalidAnswer
from service.adapters.triton_shared_memory import NoAnswer
from service.core.errors import BackendUnavailable, DeadlineExceeded, Overloaded, ServiceError
from service.core.singleflight import SingleFlight
from service.core.spec import MODEL_NAMES, ModelName, ModelSpec
from service.core.types import Array, Tensors

_LONGEST_CALL = 120.0  # seconds, for a caller that sets no limit: a hung server must not hold it for ever
_ATTEMPTS = 2


class TritonBackend:
    """Sends each call to the least busy healthy server, and once more to another one when that fails."""

    def __init__(
        self,
        repository: Repository,
        urls: Sequence[str],
        *,
        models: Sequence[ModelName] = MODEL_NAMES,
        wire: Wire | None = None,
        slots: SlotLimits | None = None,
    ) -> None:
        """Name the servers as host:port, and the `models` that they serve.

        With `slots`, tensors go by shared memory to the servers on this host.
        """
        wire = wire or Wire()
        self._repository = repository
        self._models = models
        self._identities = {name: read_identity(graph) for name, graph in repository.graphs.items()}
        self._probes: SingleFlight[str] = SingleFlight()
        self._endpoints = [TritonEndpoint(url, identities=self._identities, wire=wire, slots=slots) for url in urls]

    @property
    def spec(self) -> ModelSpec:
        """The repository's manifest."""
        return self._repository.spec

    @property
    def free_slots(self) -> int:
        """Slots of shared memory that are free now, on all servers."""
        return sum(endpoint.free_slots for endpoint in self._endpoints)

    async def run(self, model: ModelName, inputs: Tensors, *, timeout: float | None = None) -> dict[str, Array]:
        """Run one call within `timeout`; a cancelled call is cancelled on the server too."""
        end = time.monotonic() + (_LONGEST_CALL if timeout is None else timeout)
        call = self._call(model, inputs)
        tried: list[TritonEndpoint] = []
        failure: ServiceError = BackendUnavailable(f"no server takes calls of the {model}, which failed lately")
        while len(tried) < _ATTEMPTS and (endpoint := self._choose(model, tried)) is not None:
            tried.append(endpoint)
            seconds = end - time.monotonic()
            if seconds <= 0:
                raise DeadlineExceeded(f"no time was left for the {model}")
            if len(tried) < min(_ATTEMPTS, len(self._endpoints)):
                seconds /= 2  # a hung server leaves the time for another one
            try:
                return await endpoint.infer(call, timeout=seconds)
            except (OtherModel, InvalidAnswer) as error:
                failure = BackendUnavailable(f"the {model} of this server does not fit the manifest")
                failure.__cause__ = error
            except (grpc.aio.AioRpcError, NoAnswer) as error:
                failure = _service_error(error, model)
                failure.__cause__ = error
                if _is_our_fault(error):
                    break
        raise failure

    async def probe(self) -> None:
        """Run the smallest real inference of each model here; each needs one server that serves ours and answers."""
        await asyncio.gather(*(self._probe_model(model) for model in self._models))

    async def close(self) -> None:
        """Close all channels."""
        await asyncio.gather(*(endpoint.close() for endpoint in self._endpoints))

    def _call(self, model: ModelName, inputs: Tensors) -> InferCall:
        outputs = tuple(self._repository.graphs[model].outputs)
        return InferCall(model, self._identities[model].version, outputs, inputs)

    def _choose(self, model: ModelName, tried: Sequence[TritonEndpoint]) -> TritonEndpoint | None:
        """Take the least busy server that was not tried; asking a breaker may use up its trial, so ask in order."""
        for endpoint in sorted(self._endpoints, key=lambda endpoint: endpoint.in_flight):
            if endpoint not in tried and endpoint.takes(model):
                return endpoint
        return None

    async def _probe_model(self, model: ModelName) -> None:
        probes = (
            self._probes.run(f"{endpoint.url} {model}", partial(self._probe_endpoint, endpoint, model))
            for endpoint in self._endpoints
        )
        faults = [fault for fault, _ in await asyncio.gather(*probes)]
        if all(faults):
            raise BackendUnavailable("; ".join(fault for fault in faults if fault))

    async def _probe_endpoint(self, endpoint: TritonEndpoint, model: ModelName) -> str:
        """Say what is wrong with a model on a server, or nothing."""
        record = endpoint.record
        if record.fresh(model):
            return ""
        call = self._call(model, probe_inputs(self._repository.graphs[model], self.spec))
        limit = record.limit(model)
        try:
            await endpoint.check(model, timeout=min(limit, CONFIG_SECONDS))
            started = time.monotonic()
            await endpoint.infer(call, timeout=limit)
            record.took(model, time.monotonic() - started)
        except NoAnswer:
            return f"{endpoint.url}: {model}: no answer in {limit:.0f} s"
        except (OtherModel, InvalidAnswer) as error:
            return str(error)
        except grpc.aio.AioRpcError as error:
            return f"{endpoint.url}: {model}: {error.code().name} {error.details()}"
        return ""


def _is_our_fault(error: grpc.aio.AioRpcError | NoAnswer) -> bool:
    """Whether another server would refuse the call as well."""
    return not isinstance(error, NoAnswer) and error.code() is grpc.StatusCode.INVALID_ARGUMENT


def _service_error(error: grpc.aio.AioRpcError | NoAnswer, model: ModelName) -> ServiceError:
    """What a caller may know of a failed call."""
    if isinstance(error, NoAnswer) or error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(f"the {model} did not answer in time")
    if queue_was_full(error):
        return Overloaded(f"the queue of the {model} is full")
    return BackendUnavailable(f"the {model} does not answer")
