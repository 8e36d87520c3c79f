"""The gate before gRPC: a caller without a key is turned away before its message is read."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from service.core.errors import Unauthorized
from service.transports.auth import Gate
from service.transports.request_ids import request_id
from service.transports.services import RequestObserver
from service.transports.status import status_of

In = TypeVar("In")
Out = TypeVar("Out")


class KeyInterceptor(grpc.aio.ServerInterceptor):
    """Asks calls of `service` for a key; health and reflection are open, as they are over HTTP.

    It takes nothing from a rate: the calls do so themselves, a session for each of its requests.
    A call that it refuses is counted and logged as one that fails later is.
    """

    def __init__(self, gate: Gate, observer: RequestObserver, *, service: ServiceDescriptor) -> None:
        self._gate = gate
        self._observer = observer
        self._guarded = f"/{service.full_name}/"
        self._routes = {self._guarded + method.name for method in service.methods}

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[In, Out] | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[In, Out] | None":
        """The call's own handler, or one that ends the call."""
        method = handler_call_details.method
        if method.startswith(self._guarded):
            try:
                self._gate.identify(headers_of(handler_call_details.invocation_metadata))
            except Unauthorized as error:
                return self._refusal(error, route=method if method in self._routes else "other")
        return await continuation(handler_call_details)

    def _refusal(self, error: Unauthorized, *, route: str) -> "grpc.RpcMethodHandler[Any, Any]":
        """Takes a stream, whatever the call sends: of a stream nothing is read until it is asked for."""
        status = status_of(error)

        async def refuse(_: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            headers = headers_of(context.invocation_metadata())
            known_as = request_id(headers.get("x-request-id", ""))
            with self._observer.request(known_as, headers) as record:
                record.route, record.code, record.status = route, status.code, status.grpc.name
                trailers = (("x-request-id", known_as), ("ovsam-code", status.code))
                await context.abort(status.grpc, error.message, trailers)

        return grpc.stream_unary_rpc_method_handler(refuse)


def headers_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> dict[str, str]:
    """The metadata that are text, by name."""
    return {name: value for name, value in metadata or () if isinstance(value, str)}
