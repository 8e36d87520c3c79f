"""What the core needs from outside, each with two real implementations (Observer keeps Prometheus out of the core)."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol

from service.core.access import Caller, Rate
from service.core.spec import ModelName, ModelSpec
from service.core.types import Array, Source, Tensors


class ModelBackend(Protocol):
    """Runs tensors through the four graphs of one model repository, and nothing else."""

    @property
    def spec(self) -> ModelSpec:
        """The repository's manifest."""
        ...

    async def run(self, model: ModelName, inputs: Tensors, *, timeout: float | None = None) -> dict[str, Array]:
        """Run one call; tensors carry their batch axis. `timeout` is in seconds.

        Raises BackendUnavailable when the engine fails, DeadlineExceeded when `timeout` ends. A cancelled call holds
        no resource when it returns.
        """
        ...

    async def probe(self) -> None:
        """Run a tiny real inference of every model that clicks need; raises BackendUnavailable."""
        ...

    async def close(self) -> None:
        """Free everything; the backend is not used afterwards."""
        ...


class EmbeddingCache(Protocol):
    """Keeps parts of embedding bundles under a key. A cache never raises for its own failures: it misses."""

    async def get(self, key: str, parts: Sequence[str]) -> dict[str, tuple[Tensors, Source]]:
        """The parts that are there, each with the name of its tier; renews the entry's life."""
        ...

    async def put(self, key: str, parts: Mapping[str, Tensors]) -> None:
        """Keep parts; a part already there is replaced."""
        ...

    async def delete(self, key: str) -> None:
        """Forget every part of a key in every tier."""
        ...

    async def close(self) -> None:
        """Free connections."""
        ...


class EncodeLeases(Protocol):
    """Agrees between processes who encodes an image."""

    def hold(self, key: str) -> AbstractAsyncContextManager[bool]:
        """Within the block: True when the caller is to encode, False when another one has just ended doing so."""
        ...


class VocabularyStore(Protocol):
    """Keeps the vocabularies that tenants define."""

    async def get(self, tenant: str, name: str) -> bytes | None:
        """The document, or None."""
        ...

    async def put(self, tenant: str, name: str, document: bytes) -> None:
        """Keep or replace a document."""
        ...

    async def delete(self, tenant: str, name: str) -> bool:
        """Forget a document; False when there was none."""
        ...

    async def names(self, tenant: str) -> Iterable[str]:
        """The names kept for a tenant, in any order."""
        ...


class KeyRing(Protocol):
    """Knows whom an API key stands for."""

    def find(self, key: str | None) -> Caller | None:
        """The caller with this key, or without any (None); None when it may not come in."""
        ...


class RateLimits(Protocol):
    """Counts requests, all gateways together. It never raises for its own failures: it counts less well."""

    async def take(self, name: str, rate: Rate) -> float:
        """Take one request from the bucket `name`: 0 when there was one, else the seconds until there will be."""
        ...


class Observer(Protocol):
    """Is told what happens; must be cheap and never fail."""

    def image(self, tenant: str, digest: str) -> None:
        """The request under way is about this image."""
        ...

    def span(self, name: str) -> AbstractContextManager[object]:
        """Around a stage of the request under way, for those who follow it while it runs."""
        ...

    def stage(self, name: str, seconds: float) -> None:
        """A stage of the request under way took `seconds`."""
        ...

    def batch(self, model: str, size: int) -> None:
        """A model was called with `size` items."""
        ...

    def cache(self, result: str) -> None:
        """An embedding was found in a tier (memory, redis), or not (miss), or awaited (coalesced)."""
        ...

    def cache_fault(self, kind: str) -> None:
        """A cache failed or held something unusable."""
        ...

    def queue(self, name: str, depth: int) -> None:
        """A queue now holds `depth` items."""
        ...

    def dropped(self, queue: str, reason: str) -> None:
        """An item left a queue without being worked on: departed, overloaded or expired."""
        ...
