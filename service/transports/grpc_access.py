"""The gate before gRPC: a caller without a key is turned away before its message is read."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import grpc

from service.core.errors import Unauthorized
from service.transports.auth import Gate
from service.transports.status import status_of

In = TypeVar("In")
Out = TypeVar("Out")


class KeyInterceptor(grpc.aio.ServerInterceptor):
    """Asks calls of `service` for a key; health and reflection are open, as they are over HTTP.

    It takes nothing from a rate: the calls do so themselves, a session for each of its requests.
    """

    def __init__(self, gate: Gate, *, service: str) -> None:
        self._gate = gate
        self._guarded = f"/{service}/"

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[In, Out] | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[In, Out] | None":
        """The call's own handler, or one that ends the call."""
        if handler_call_details.method.startswith(self._guarded):
            try:
                self._gate.identify(headers_of(handler_call_details.invocation_metadata))
            except Unauthorized as error:
                return _refusal(error)
        return await continuation(handler_call_details)


def headers_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> dict[str, str]:
    """The metadata that are text, by name."""
    return {name: value for name, value in metadata or () if isinstance(value, str)}


def _refusal(error: Unauthorized) -> "grpc.RpcMethodHandler[Any, Any]":
    """Takes a stream, whatever the call sends: of a stream nothing is read until it is asked for."""
    status = status_of(error)

    async def refuse(_: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.abort(status.grpc, error.message, (("ovsam-code", status.code),))

    return grpc.stream_unary_rpc_method_handler(refuse)
