"""Logs and Prometheus metrics; the only place that knows either. Implements `core.ports.Observer`."""

import logging
import sys

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

METRICS_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class PrometheusObserver:
    """Counts what happens in a registry of its own, so that two apps in one process do not meet."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "ovsam_requests", "Requests answered, by route and public code", ["route", "code"], registry=registry
        )
        self._latency = Histogram(
            "ovsam_request_seconds", "Time to answer a request", ["route"], buckets=_SECONDS, registry=registry
        )
        self._stages = Histogram(
            "ovsam_stage_seconds", "Time a request spends in a stage", ["stage"], buckets=_SECONDS, registry=registry
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

    def request(self, route: str, code: str, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(route, code).inc()
        self._latency.labels(route).observe(seconds)

    def stage(self, name: str, seconds: float) -> None:
        """A stage of a request took `seconds`."""
        self._stages.labels(name).observe(seconds)

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

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)


def set_up_logs(level: str) -> None:
    """Plain lines on standard error."""
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # its lines hold whole URLs, presigned ones too
