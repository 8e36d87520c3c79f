"""Spans by OpenTelemetry's SDK, sent over OTLP/gRPC; its own OTEL_ variables set sampling, service name and headers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import grpc
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.logs import RequestRecord

_PROPAGATOR = TraceContextTextMapPropagator()
_OUR_FAILURES = {"internal", "backend-unavailable", "overloaded", "deadline"}


class OtlpTracing:
    """Implements `service.tracing.Tracing` over a provider of its own, so that two apps in one process do not meet."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("ovsam")

    @contextmanager
    def request(self, record: RequestRecord, headers: Mapping[str, str]) -> Iterator[None]:
        """A server span under the caller's own, named after the route once that is known."""
        caller = _PROPAGATOR.extract({name: headers[name] for name in _PROPAGATOR.fields if name in headers})
        with self._tracer.start_as_current_span("request", context=caller, kind=SpanKind.SERVER) as span:
            record.trace_id = trace.format_trace_id(span.get_span_context().trace_id)
            try:
                yield
            finally:
                _tell(span, record)

    def span(self, name: str) -> AbstractContextManager[object]:
        """A span of a stage."""
        return self._tracer.start_as_current_span(name)

    def interceptors(self) -> Sequence[Any]:
        """One, for calls that answer once."""
        return (_CallSpans(self._tracer),)

    def close(self) -> None:
        """Send what is not sent yet."""
        self._provider.shutdown()


class _CallSpans(grpc.aio.UnaryUnaryClientInterceptor):
    """A client span for each call made on behalf of a traced request, whose name goes along as `traceparent`."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        """Make the call; probes, which belong to no request, leave no trace."""
        if not trace.get_current_span().get_span_context().is_valid:
            return await continuation(client_call_details, request)
        method = client_call_details.method
        name = (method.decode() if isinstance(method, bytes) else method).rpartition("/")[2]
        model = getattr(request, "model_name", "")
        with self._tracer.start_as_current_span(f"{name} {model}".strip(), kind=SpanKind.CLIENT):
            carrier: dict[str, str] = {}
            _PROPAGATOR.inject(carrier)
            metadata = (*(client_call_details.metadata or ()), *carrier.items())
            details = grpc.aio.ClientCallDetails(
                method=client_call_details.method,
                timeout=client_call_details.timeout,
                metadata=grpc.aio.Metadata(*metadata),
                credentials=client_call_details.credentials,
                wait_for_ready=client_call_details.wait_for_ready,
            )
            call = await continuation(details, request)
            await call
            return call


def open_otlp(url: str) -> OtlpTracing:
    """Send spans to `url`, in batches and from a thread; when nobody takes them they are dropped."""
    provider = TracerProvider(resource=Resource.create({"service.name": "ovsam-gateway"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    return OtlpTracing(provider)


def _tell(span: Span, record: RequestRecord) -> None:
    span.update_name(record.route)
    span.set_attributes({f"ovsam.{name}": str(value) for name, value in record.fields().items() if name != "stages"})
    span.set_attribute("ovsam.request_id", record.request_id)
    if record.code in _OUR_FAILURES:
        span.set_status(StatusCode.ERROR, record.code)
