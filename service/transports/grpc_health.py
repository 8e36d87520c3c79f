"""grpc.health.v1: a service is SERVING while it is ready, which means here what it means to /readyz."""
# ruff: noqa: N802 - the names of calls are the proto's

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.core.errors import ServiceError

_UNKNOWN = "this server has no such service"


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # the package brings no types
    """Answers for the `names` of services; however many ask, readiness is checked once in `fresh_seconds`."""

    def __init__(
        self, check_ready: Callable[[], Awaitable[None]], *, names: Collection[str], fresh_seconds: float = 2.0
    ) -> None:
        self._check_ready = check_ready
        self._names = {"", *names}
        self._fresh_seconds = fresh_seconds
        self._probing = asyncio.Lock()
        self._probed = -fresh_seconds
        self._serving = False
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """Say NOT_SERVING from now on, and end the watches."""
        self._draining.set()

    async def Check(
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse],
    ) -> health_pb2.HealthCheckResponse:
        """The status now."""
        if request.service not in self._names:
            await context.abort(grpc.StatusCode.NOT_FOUND, _UNKNOWN)
        return health_pb2.HealthCheckResponse(status=await self._status(request.service))

    async def Watch(
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse],
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The status now, and again whenever it changes."""
        del context
        told: int | None = None
        while True:
            status = await self._status(request.service)
            if status != told:
                yield health_pb2.HealthCheckResponse(status=status)
                told = status
            if self._draining.is_set():
                return
            try:
                await asyncio.wait_for(self._draining.wait(), self._fresh_seconds)
            except TimeoutError:
                continue

    async def _status(self, service: str) -> health_pb2.HealthCheckResponse.ServingStatus.ValueType:
        if service not in self._names:
            return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        if not self._draining.is_set() and await self._ready():
            return health_pb2.HealthCheckResponse.SERVING
        return health_pb2.HealthCheckResponse.NOT_SERVING

    async def _ready(self) -> bool:
        async with self._probing:
            if time.monotonic() - self._probed >= self._fresh_seconds:
                try:
                    await self._check_ready()
                    self._serving = True
                except ServiceError:
                    self._serving = False
                self._probed = time.monotonic()
            return self._serving
