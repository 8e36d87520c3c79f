"""Spans of requests and stages. The service without the extra `tracing`, or without an address, makes none."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from service.logs import RequestRecord

_NOTHING: AbstractContextManager[None] = nullcontext()


class TracingMissing(OSError):
    """Traces are asked for, and the packages that make them are not installed."""


class Tracing(Protocol):
    """Follows requests through this process and into the model server."""

    def request(self, record: RequestRecord, headers: Mapping[str, str]) -> AbstractContextManager[object]:
        """Around a request, as a part of the trace that its headers name, if any; told from `record` at the end."""
        ...

    def span(self, name: str) -> AbstractContextManager[object]:
        """Around a stage of the request under way."""
        ...

    def interceptors(self) -> Sequence[Any]:
        """What adds spans and the trace's name to the calls of a gRPC channel (grpc.aio.ClientInterceptor)."""
        ...

    def close(self) -> None:
        """Send what is not sent yet."""
        ...


class NoTracing:
    """Costs a call of an empty method for each stage."""

    def request(self, record: RequestRecord, headers: Mapping[str, str]) -> AbstractContextManager[object]:  # noqa: ARG002 - the port's form
        """Nothing."""
        return _NOTHING

    def span(self, name: str) -> AbstractContextManager[object]:  # noqa: ARG002 - the port's form
        """Nothing."""
        return _NOTHING

    def interceptors(self) -> Sequence[Any]:
        """None."""
        return ()

    def close(self) -> None:
        """Nothing."""


def open_tracing(url: str) -> Tracing:
    """Spans go to the OTLP/gRPC address `url`; without one there are none. Raises TracingMissing."""
    if not url:
        return NoTracing()
    try:
        from service.tracing_otlp import open_otlp  # noqa: PLC0415 - costs nobody an import who does not trace
    except ModuleNotFoundError as error:
        raise TracingMissing(f"OVSAM_TRACES_URL needs the extra `tracing` of this package: {error}") from error
    return open_otlp(url)
