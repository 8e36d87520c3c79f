"""The embedding cache that all gateways share. A failure of Redis is a miss and a metric, never an error.

One hash for each image, one field for each part; the key's tag in braces keeps everything of an image on one Redis
Cluster slot.
"""

import asyncio
import struct
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import RedisError

from service.adapters.breaker import Breaker
from service.adapters.codec import InvalidPart, decode_part, encode_part
from service.core.ports import Observer
from service.core.types import Source, Tensors

Answer = TypeVar("Answer")
_SLOWEST = 2**25  # bytes a second that a write may need beside the round trip
_INLINE_BYTES = 2**18  # (de)coding more than this is left to a thread


@dataclass(frozen=True, slots=True)
class RedisLimits:
    """`ttl` seconds since the last use, `value` bytes of one part, `timeout` seconds of one round trip."""

    ttl: int = 86_400
    value: int = 64 * 2**20
    timeout: float = 1.0


class RedisCache:
    """Parts of embedding bundles in Redis."""

    def __init__(self, client: Redis, *, limits: RedisLimits, observer: Observer) -> None:
        self._client = client
        self._limits = limits
        self._observer = observer
        self._breaker = Breaker(failures=3, seconds=2.0)

    async def get(self, key: str, parts: Sequence[str]) -> dict[str, tuple[Tensors, Source]]:
        """The parts that are there and whole; renews the image's life."""
        name = _name(key)
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hmget(name, list(parts))
        pipeline.expire(name, self._limits.ttl)
        answer = await self._guard(_execute(pipeline))
        if answer is None:
            return {}
        found: dict[str, tuple[Tensors, Source]] = {}
        for part, content in zip(parts, cast(list[list[bytes | None]], answer)[0], strict=True):
            if content is None:
                continue
            try:
                found[part] = await self._decode(content), "redis"
            except (InvalidPart, ValueError, KeyError, TypeError, struct.error):
                self._observer.cache_fault("corrupt")
                await self._guard(self._client.hdel(name, part))
        return found

    async def put(self, key: str, parts: Mapping[str, Tensors]) -> None:
        """Keep parts; one that is over the limit is left out."""
        if self._breaker.resting:
            return
        encoded = await asyncio.to_thread(lambda: {part: encode_part(tensors) for part, tensors in parts.items()})
        small = {part: content for part, content in encoded.items() if len(content) <= self._limits.value}
        for _ in range(len(encoded) - len(small)):
            self._observer.cache_fault("oversized")
        if small:
            pipeline = self._client.pipeline(transaction=False)
            pipeline.hset(_name(key), items=[item for pair in small.items() for item in pair])
            pipeline.expire(_name(key), self._limits.ttl)
            size = sum(len(content) for content in small.values())
            await self._guard(_execute(pipeline), seconds=self._limits.timeout + size / _SLOWEST)

    async def delete(self, key: str) -> None:
        """Forget an image."""
        await self._guard(self._client.delete(_name(key)))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _guard(self, call: Awaitable[Answer], *, seconds: float | None = None) -> Answer | None:
        """The answer, or None when Redis fails or is slow: then the breaker counts."""
        if self._breaker.open:
            if asyncio.iscoroutine(call):
                call.close()
            return None
        try:
            async with asyncio.timeout(seconds or self._limits.timeout):
                answer = await call
        except (RedisError, OSError, TimeoutError) as error:
            self._breaker.failed()
            self._observer.cache_fault("timeout" if isinstance(error, TimeoutError) else "unavailable")
            return None
        self._breaker.succeeded()
        return answer

    async def _decode(self, content: bytes) -> Tensors:
        if len(content) <= _INLINE_BYTES:
            return decode_part(content)
        return await asyncio.to_thread(decode_part, content)


async def _execute(pipeline: Pipeline) -> list[Any]:
    """The answers; raises the first failure as it came.

    redis-py's own raising puts the whole command into the message: with megabytes in it that takes seconds on the event
    loop, just when Redis is full.
    """
    answers: list[Any] = await pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def _name(key: str) -> str:
    return f"ovsam:{{{key.removesuffix('#masks')}}}{'#masks' if key.endswith('#masks') else ''}"
