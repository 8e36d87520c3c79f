"""The embedding of an image: found in the cache, or encoded once however many ask for it at the same time."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from service.core.batcher import Batcher, BatchLimits
from service.core.bundles import MASK_PART, REGION_PART, letterbox_of
from service.core.errors import ImageTooLarge, ServiceError, UnknownImage
from service.core.inference import encode_image
from service.core.ports import EmbeddingCache, EncodeLeases, ModelBackend, Observer
from service.core.singleflight import SingleFlight
from service.core.timing import Timing
from service.core.types import ImageEmbedding, ImageKey, Source, Tensors


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits of one image, and of the encoder's queue."""

    body_bytes: int = 32 * 2**20
    pixels: int = 50_000_000
    queue: int = 32
    slots: int = 1
    seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class _Encoded:
    parts: Mapping[str, Tensors]
    found: Source | None  # the tier, when another process had stored it meanwhile


class Embedder:
    """Opens images by key; the heavy image encoder runs at most once for an image."""

    def __init__(
        self,
        *,
        backend: ModelBackend,
        cache: EmbeddingCache,
        leases: EncodeLeases,
        observer: Observer,
        limits: ImageLimits,
    ) -> None:
        self._backend = backend
        self._cache = cache
        self._leases = leases
        self._observer = observer
        self.limits = limits
        self._flights: SingleFlight[_Encoded] = SingleFlight()
        self._prewarming: set[asyncio.Task[None]] = set()
        self._decoders = ThreadPoolExecutor(limits.slots, thread_name_prefix="decode")
        self._queue: Batcher[str, bytes, dict[str, Tensors]] = Batcher(
            "image_encoder",
            self._encode,
            limits=BatchLimits(batch=1, queue=limits.queue, slots=limits.slots, seconds=limits.seconds),
            observer=observer,
        )

    def key(self, tenant: str, digest: str) -> ImageKey:
        """The cache key of a tenant's image under the model served now."""
        spec = self._backend.spec
        return ImageKey(tenant, digest, spec.revision, spec.preprocessing)

    async def find(self, key: ImageKey) -> ImageEmbedding | None:
        """The embedding if it is cached or being made now."""
        self._observer.image(key.tenant, key.digest)
        found = await self._cache.get(key.text, [MASK_PART])
        if MASK_PART in found:
            part, tier = found[MASK_PART]
            self._observer.cache(tier)
            return _embedding(key, {MASK_PART: part}, tier)
        if self._flights.running(key.text):
            self._queue.promote(key.text)
            encoded = await self._flights.join(key.text)
            self._observer.cache("coalesced")
            return _embedding(key, encoded.parts, "coalesced")
        return None

    async def open(self, key: ImageKey, content: bytes | None, *, timing: Timing) -> ImageEmbedding:
        """The embedding; without `content` it must be cached or being made, else UnknownImage."""
        with timing.stage("fetch"):
            embedding = await self.find(key)
        if embedding is not None:
            return embedding
        if content is None:
            raise UnknownImage(f"no embedding is kept for {key.digest}; upload the image to /v1/images, then retry")
        with timing.stage("encode"):
            return await self.encode(key, content)

    async def encode(self, key: ImageKey, content: bytes, *, background: bool = False) -> ImageEmbedding:
        """Encode an image unless it is cached whole or being encoded already."""
        if len(content) > self.limits.body_bytes:
            raise ImageTooLarge(f"the image has {len(content)} bytes; the limit is {self.limits.body_bytes}")
        encoded, coalesced = await self._flights.run(key.text, lambda: self._fill(key, content, background=background))
        source: Source = "coalesced" if coalesced else encoded.found or "miss"
        self._observer.cache(source)
        return _embedding(key, encoded.parts, source)

    def prewarm(self, key: ImageKey, content: bytes) -> None:
        """Encode in the background, after all interactive work; a failure shows when somebody asks for the image."""
        self._observer.image(key.tenant, key.digest)
        if self._flights.running(key.text):
            return
        task = asyncio.ensure_future(self._prewarm(key, content))
        self._prewarming.add(task)
        task.add_done_callback(self._prewarming.discard)

    async def region_parts(self, embedding: ImageEmbedding, names: Sequence[str]) -> Mapping[str, Tensors]:
        """Parts of the region group; raises UnknownImage when the cache has dropped one of them."""
        missing = [name for name in names if name not in embedding.parts]
        if not missing:
            return embedding.parts
        found = await self._cache.get(embedding.key.text, missing)
        if len(found) < len(missing):
            raise UnknownImage(
                f"the embedding of {embedding.key.digest} is no longer kept whole; upload the image again"
            )
        return {**embedding.parts, **{name: part for name, (part, _) in found.items()}}

    async def forget(self, key: ImageKey) -> None:
        """Remove the image from every tier of the cache."""
        self._observer.image(key.tenant, key.digest)
        await self._cache.delete(key.text)
        await self._cache.delete(masks_key(key))

    async def close(self) -> None:
        """End background work, then wait for calls in hand."""
        for task in self._prewarming:
            task.cancel()
        await asyncio.gather(*self._prewarming, return_exceptions=True)
        await self._queue.close()
        self._decoders.shutdown(wait=False, cancel_futures=True)

    async def _fill(self, key: ImageKey, content: bytes, *, background: bool) -> _Encoded:
        """Look once more, since the cache may have been filled while we came here, then encode and keep."""
        while True:
            kept = await self._kept(key)
            if kept is not None:
                return kept
            async with self._leases.hold(key.text) as held:
                kept = await self._kept(key)
                if kept is not None:
                    return kept
                if held:
                    (parts,), _ = await self._queue.submit(key.text, [content], background=background)
                    await self._cache.put(key.text, parts)
                    return _Encoded(parts, None)

    async def _kept(self, key: ImageKey) -> _Encoded | None:
        found = await self._cache.get(key.text, [MASK_PART, REGION_PART])
        if len(found) < 2:
            return None
        return _Encoded({name: part for name, (part, _) in found.items()}, found[MASK_PART][1])

    async def _encode(self, _: str, contents: Sequence[bytes]) -> list[dict[str, Tensors]]:
        limits = self.limits
        return [
            await encode_image(
                self._backend, content, decoders=self._decoders, max_pixels=limits.pixels, timeout=limits.seconds
            )
            for content in contents
        ]

    async def _prewarm(self, key: ImageKey, content: bytes) -> None:
        try:
            await self.encode(key, content, background=True)
        except ServiceError as error:
            self._observer.dropped("prewarm", type(error).__name__)


def _embedding(key: ImageKey, parts: Mapping[str, Tensors], source: Source) -> ImageEmbedding:
    return ImageEmbedding(key=key, letterbox=letterbox_of(parts[MASK_PART]), parts=parts, source=source)


def masks_key(key: ImageKey) -> str:
    """Where an image's masks are kept for refinement, beside its embedding."""
    return f"{key.text}#masks"
