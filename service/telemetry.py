"""Prometheus metrics, and with them the request's log line and spans. Implements `core.ports.Observer`."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from service.core.spec import MODEL_NAMES
from service.logs import RequestRecord, current_request, log_request
from service.tracing import NoTracing, Tracing

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_OUR_FAILURES = ("internal", "backend-unavailable", "overloaded", "deadline")
_FAULTS = ("unavailable", "timeout", "lease", "corrupt", "oversized")
_SOURCES = ("memory", "redis", "coalesced", "miss")


class PrometheusObserver:
    """Counts what happens in a registry of its own, so that two apps in one process do not meet.

    No label holds what a caller wrote: routes are templates, codes and stages are ours. A series that an alert asks for
    begins at 0: Prometheus sees no increase in one that begins with its first event.
    """

    def __init__(self, tracing: Tracing | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each one, which no rule and no panel asks for
        self.registry = registry = CollectorRegistry()
        self._tracing = tracing or NoTracing()
        self._requests = Counter(
            "ovsam_requests", "Requests answered, by route and public code", ["route", "code"], registry=registry
        )
        self._latency = Histogram(
            "ovsam_request_seconds", "Time to answer a request", ["route"], buckets=_SECONDS, registry=registry
        )
        self._stages = Histogram(
            "ovsam_stage_seconds", "Time of one run of a stage", ["stage"], buckets=_SECONDS, registry=registry
        )
        self._batches = Histogram(
            "ovsam_batch_items", "Items in one model call", ["model"], buckets=_ITEMS, registry=registry
        )
        self._cache = Counter(
            "ovsam_cache_lookups", "Embeddings by where they came from", ["result"], registry=registry
        )
        self._faults = Counter("ovsam_cache_faults", "Failures of a cache tier", ["kind"], registry=registry)
        self._depth = Gauge("ovsam_queue_items", "Items waiting for a model", ["queue"], registry=registry)
        self._dropped = Counter(
            "ovsam_queue_dropped", "Items that left a queue undone", ["queue", "reason"], registry=registry
        )
        for source in _SOURCES:
            self._cache.labels(source)
        for kind in _FAULTS:
            self._faults.labels(kind)
        for model in MODEL_NAMES:
            self._dropped.labels(model, "overloaded")

    @contextmanager
    def request(self, request_id: str, headers: Mapping[str, str]) -> Iterator[RequestRecord]:
        """Around a request: times, counts and traces it (as part of what `headers` name), and logs its one line."""
        record = RequestRecord(request_id)
        token = current_request.set(record)
        started = time.perf_counter()
        try:
            with self._tracing.request(record, headers):
                yield record
        finally:
            current_request.reset(token)
            record.seconds = time.perf_counter() - started
            for code in _OUR_FAILURES:
                self._requests.labels(record.route, code)
            self._requests.labels(record.route, record.code).inc()
            self._latency.labels(record.route).observe(record.seconds)
            log_request(record)

    def image(self, tenant: str, digest: str) -> None:
        """The request under way is about this image."""
        record = current_request.get()
        if record is not None:
            record.tenant, record.image = tenant, digest

    def span(self, name: str) -> AbstractContextManager[object]:
        """Around a stage of the request under way."""
        return self._tracing.span(name)

    def stage(self, name: str, seconds: float) -> None:
        """A stage of the request under way took `seconds`."""
        self._stages.labels(name).observe(seconds)
        record = current_request.get()
        if record is not None:
            record.stages[name] = record.stages.get(name, 0.0) + seconds

    def batch(self, model: str, size: int) -> None:
        """A model was called."""
        self._batches.labels(model).observe(size)

    def cache(self, result: str) -> None:
        """An embedding was looked for."""
        self._cache.labels(result).inc()

    def cache_fault(self, kind: str) -> None:
        """A cache failed."""
        self._faults.labels(kind).inc()

    def queue(self, name: str, depth: int) -> None:
        """A queue changed."""
        self._depth.labels(name).set(depth)

    def dropped(self, queue: str, reason: str) -> None:
        """An item was not worked on."""
        self._dropped.labels(queue, reason).inc()

    def interceptors(self) -> Sequence[Any]:
        """For the gRPC channels to the model server (grpc.aio.ClientInterceptor): they carry a request's trace on."""
        return self._tracing.interceptors()

    def close(self) -> None:
        """Send the spans that are not sent yet."""
        self._tracing.close()

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
