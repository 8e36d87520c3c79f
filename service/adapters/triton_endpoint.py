"""One Triton server: its channel, what is known of its health, and the proof that it serves our model."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from service.adapters.breaker import Breaker
from service.adapters.probe import ProbeRecord
from service.adapters.shared_slots import SlotLimits
from service.adapters.triton_identity import ModelIdentity
from service.adapters.triton_messages import InferCall, answer_tensors
from service.adapters.triton_shared_memory import NoAnswer, SharedMemoryPath
from service.core.spec import MODEL_NAMES, ModelName
from service.core.types import Array

_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),  # the backend decides, and knows the deadline
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5000),  # what one attempt may take: a busy server greets late
    ("grpc.max_reconnect_backoff_ms", 1000),
]
_BREAKER_FAILURES, _BREAKER_SECONDS = 3, 2.0
CONFIG_SECONDS = 5.0
_CHECKED_SECONDS = 5.0  # for so long a server is taken to serve what it said, as long as no call fails
_PATIENT_SECONDS = 0.5  # a call that was given less proves nothing by its timeout


class OtherModel(Exception):
    """The server answers for a model of this name that is not the one in the manifest."""


@dataclass(frozen=True, slots=True)
class Wire:
    """How servers are talked to: over TLS where there are `credentials`, with what `interceptors` add to each call."""

    credentials: grpc.ChannelCredentials | None = None
    interceptors: Sequence[grpc.aio.ClientInterceptor] = ()

    def open(self, url: str) -> grpc.aio.Channel:
        """A channel to one server; it connects with the first call."""
        if self.credentials is None:
            return grpc.aio.insecure_channel(url, options=_CHANNEL_OPTIONS, interceptors=self.interceptors)
        return grpc.aio.secure_channel(url, self.credentials, options=_CHANNEL_OPTIONS, interceptors=self.interceptors)


class TritonEndpoint:
    """Calls to one server; each model has a breaker of its own, since the process behind one model can die alone."""

    def __init__(
        self, url: str, *, identities: Mapping[ModelName, ModelIdentity], wire: Wire, slots: SlotLimits | None = None
    ) -> None:
        self.url = url
        self._identities = identities
        self._checked: dict[ModelName, float] = {}
        self.in_flight = 0
        self._channel = wire.open(url)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._shared_memory = SharedMemoryPath(self._stub, slots) if slots else None
        self._breakers = {name: Breaker(failures=_BREAKER_FAILURES, seconds=_BREAKER_SECONDS) for name in MODEL_NAMES}
        self.record = ProbeRecord()

    @property
    def free_slots(self) -> int:
        """Slots of shared memory that are free now."""
        return 0 if self._shared_memory is None else self._shared_memory.free_slots

    def takes(self, model: ModelName) -> bool:
        """Whether a call may be tried; after failures in a row only one every few seconds."""
        return not self._breakers[model].open

    async def infer(self, call: InferCall, *, timeout: float) -> dict[str, Array]:
        """Make one call. Raises grpc.aio.AioRpcError, NoAnswer, OtherModel or InvalidAnswer."""
        self.in_flight += 1
        end = time.monotonic() + timeout
        try:
            if time.monotonic() - self._checked.get(call.model, -_CHECKED_SECONDS) >= _CHECKED_SECONDS:
                await self.check(call.model, timeout=min(timeout, CONFIG_SECONDS))
            response = await self._send(call, end)
        except (grpc.aio.AioRpcError, NoAnswer) as error:
            self.record.failed(call.model)
            self._checked.pop(call.model, None)  # what answers next may be a server started anew, with other files
            if _is_at_fault(error, timeout):
                self._breakers[call.model].failed()
            raise
        finally:
            self.in_flight -= 1
        self._breakers[call.model].succeeded()
        self.record.answered(call.model)
        return answer_tensors(response, call.outputs)

    async def check(self, model: ModelName, *, timeout: float = CONFIG_SECONDS) -> None:
        """Raise OtherModel unless the server serves the model that the gateway has read."""
        identity = self._identities[model]
        question = service_pb2.ModelConfigRequest(name=model, version=identity.version)
        answer = await self._stub.ModelConfig(question, timeout=timeout)
        if difference := identity.difference(answer.config):
            self.record.failed(model)
            self._checked.pop(model, None)
            raise OtherModel(f"{self.url} serves another {model} than the gateway's manifest describes: {difference}")
        self._checked[model] = time.monotonic()

    async def close(self) -> None:
        """Close the channel; calls in hand are cancelled."""
        if self._shared_memory is not None:
            await self._shared_memory.close()
        await self._channel.close()

    async def _send(self, call: InferCall, end: float) -> service_pb2.ModelInferResponse:
        if self._shared_memory is not None:
            response = await self._shared_memory.send(call, end)
            if response is not None:
                return response
        return await self._stub.ModelInfer(call.request(), timeout=max(0.0, end - time.monotonic()))


def queue_was_full(error: grpc.aio.AioRpcError) -> bool:
    """Whether a call was turned away unworked; the status alone, UNAVAILABLE, also means a dead server."""
    return "maximum queue size" in (error.details() or "")


def _is_at_fault(error: grpc.aio.AioRpcError | NoAnswer, timeout: float) -> bool:
    """Whether a failed call speaks against the server, and not against the request or its short deadline."""
    if isinstance(error, NoAnswer) or error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return timeout >= _PATIENT_SECONDS
    return error.code() is not grpc.StatusCode.INVALID_ARGUMENT and not queue_was_full(error)
