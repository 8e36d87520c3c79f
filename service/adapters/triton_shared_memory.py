"""Calls whose inputs lie in shared memory, for a Triton on this host; everything else about a call stays the same."""

import asyncio
import logging
import time
from functools import partial

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from service.adapters.shared_slots import Slot, SlotLimits, SlotPool
from service.adapters.triton_messages import InferCall

_CONTROL_SECONDS = 2.0
_LONGEST_CALL = 300.0  # seconds; a call in a slot that takes longer costs the slot
_UNSURE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
_log = logging.getLogger(__name__)


class NoAnswer(Exception):
    """The server did not answer in time."""


class SharedMemoryPath:
    """Registers a region with one server, again whenever the server is a new one, and sends calls by its slots.

    A server that cannot map our memory (on another host, in another container) is not asked again.
    """

    def __init__(self, stub: service_pb2_grpc.GRPCInferenceServiceStub, limits: SlotLimits) -> None:
        self._stub = stub
        self._limits = limits
        self._pool: SlotPool | None = None
        self._possible = True
        self._opening: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Future[service_pb2.ModelInferResponse]] = set()

    @property
    def free_slots(self) -> int:
        """Slots that are free now."""
        return 0 if self._pool is None else self._pool.free

    async def send(self, call: InferCall, end: float) -> service_pb2.ModelInferResponse | None:
        """Send a call that must be answered at `end` (monotonic seconds); None when it has to go by message.

        The call goes on when the caller has left: only then is it known when the slot is free.
        """
        if (self._pool is None or self._pool.spent) and self._possible and self._opening is None:
            self._opening = asyncio.create_task(self._open())  # apart: the caller may leave, and need not wait
        pool = self._pool
        slot = pool.take(call.inputs) if pool else None
        if pool is None or slot is None:
            return None
        sent = asyncio.ensure_future(self._stub.ModelInfer(call.request(slot), timeout=_LONGEST_CALL))
        self._calls.add(sent)
        sent.add_done_callback(partial(self._ended, pool, slot))
        await asyncio.wait({sent}, timeout=max(0.0, end - time.monotonic()))
        if not sent.done():
            raise NoAnswer
        try:
            return sent.result()
        except grpc.aio.AioRpcError as error:
            if pool.name not in (error.details() or ""):
                raise
            self._pool = None  # a new server, which does not know our memory
            return None

    async def close(self) -> None:
        """Wait for the calls in slots and let the server forget the region."""
        if self._opening is not None:
            await self._opening
        if self._calls:
            await asyncio.wait(self._calls, timeout=_CONTROL_SECONDS)
        if self._pool is not None:
            request = service_pb2.SystemSharedMemoryUnregisterRequest(name=self._pool.name)
            try:
                await self._stub.SystemSharedMemoryUnregister(request, timeout=_CONTROL_SECONDS)
            except grpc.aio.AioRpcError as error:
                _log.info("the server is gone, and with it what it knew of our memory: %s", error.details())

    async def _open(self) -> None:
        """Make a region and let the server map it."""
        pool = SlotPool(self._limits)
        request = service_pb2.SystemSharedMemoryRegisterRequest(
            name=pool.name, key=f"/{pool.name}", offset=0, byte_size=self._limits.count * self._limits.size
        )
        try:
            await self._stub.SystemSharedMemoryRegister(request, timeout=_CONTROL_SECONDS)
            self._pool = pool
        except grpc.aio.AioRpcError as error:
            if error.code() not in _UNSURE:
                _log.warning("sending tensors by message, the server cannot map our memory: %s", error.details())
                self._possible = False
        finally:
            pool.unlink()
            self._opening = None

    def _ended(self, pool: SlotPool, slot: Slot, sent: "asyncio.Future[service_pb2.ModelInferResponse]") -> None:
        """Free a slot when the server itself ended the call; what ended otherwise may still be read."""
        self._calls.discard(sent)
        error = None if sent.cancelled() else sent.exception()
        if sent.cancelled() or (isinstance(error, grpc.aio.AioRpcError) and error.code() in _UNSURE):
            pool.retire(slot)
        else:
            pool.release(slot)
