"""What every transport is given: the use cases and the limits that belong to the wire."""

import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from service.core.embedder import Embedder
from service.core.errors import Warming
from service.core.ports import ModelBackend
from service.core.segmenter import Segmenter
from service.core.vocabularies import Vocabularies
from service.transports.auth import Gate
from service.transports.fetching import Fetch, fetch_nothing


class RequestRecord(Protocol):
    """What a transport knows of a request when it ends; `code` is "ok", "departed" or a public error's."""

    method: str
    route: str
    code: str
    status: str
    tenant: str


class RequestObserver(Protocol):
    """Counts requests and renders all that was counted."""

    def request(self, request_id: str, headers: Mapping[str, str]) -> AbstractContextManager[RequestRecord]:
        """Around one request, as part of the trace that its headers (names in lower case) may name."""
        ...

    def render(self) -> bytes:
        """Metrics in Prometheus' text format."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Services:
    """The ready objects that a handler works with."""

    backend: ModelBackend
    segmenter: Segmenter
    embedder: Embedder
    vocabularies: Vocabularies
    observer: RequestObserver
    gate: Gate
    request_seconds: float
    upload_seconds: float
    fetch: Fetch = fetch_nothing
    draining: threading.Event = field(default_factory=threading.Event)  # set when the process is about to end

    def deadline(self) -> float:
        """When a request that comes now must be answered, by `time.monotonic`."""
        return time.monotonic() + self.request_seconds

    async def check_ready(self) -> None:
        """Raise Warming while the process drains, BackendUnavailable unless every model answers a probe."""
        if self.draining.is_set():
            raise Warming("this process is about to end", retry_after=1)
        await self.backend.probe()
