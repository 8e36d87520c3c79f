"""Who encodes an image: one process at a time, by a lease in Redis; without Redis each process for itself."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.adapters.breaker import Breaker
from service.core.ports import Observer

# Nothing when taken, else the milliseconds that another holds it. What woke the last waiters must not wake the next.
_TAKE = """
if redis.call('set', KEYS[1], ARGV[1], 'nx', 'px', ARGV[2]) then redis.call('del', KEYS[2]) return false end
return redis.call('pttl', KEYS[1])"""
# Only the owner may renew or release: a process that slept past its lease must not touch its successor's.
_RENEW = """
if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) else return 0 end"""
_RELEASE = """
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('del', KEYS[1], KEYS[2])
redis.call('rpush', KEYS[2], 'done')
return redis.call('pexpire', KEYS[2], ARGV[2])"""


class LocalLeases:
    """Every process may encode; single flight inside it is all there is."""

    def hold(self, key: str) -> AbstractAsyncContextManager[bool]:  # noqa: ARG002 - the port's form
        """Always held."""
        return nullcontext(enter_result=True)


class RedisLeases:
    """A lease of `seconds` per key, renewed while it is held; it ends by itself when its holder dies.

    Those who wait block on a list that the holder fills when it has ended, so they are told at once and do not poll.
    What is written under a lease is named by its content (image digest, model revision), so a writer that lost its
    lease can only write what its successor writes too: the owner's token fences renewal and release.
    """

    def __init__(self, client: Redis, *, seconds: float, observer: Observer) -> None:
        self._client = client
        self._seconds = seconds
        self._observer = observer
        self._breaker = Breaker(failures=2, seconds=2.0)

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[bool]:
        """True: the caller holds the lease within the block. False: another held it and has ended (or died)."""
        token = secrets.token_hex(16)
        try:
            held = await self._acquire(key, token)
        except (RedisError, OSError, TimeoutError):
            self._breaker.failed()
            self._observer.cache_fault("lease")
            held = None
        if held is None:  # no lease to be had: each process for itself
            yield True
            return
        if not held:
            yield False
            return
        renewal = asyncio.ensure_future(self._renew(key, token))
        try:
            yield True
        finally:
            renewal.cancel()
            await asyncio.shield(self._release(key, token))

    async def _acquire(self, key: str, token: str) -> bool | None:
        """True when taken, False after waiting for another holder, None when Redis is left alone."""
        if self._breaker.open:
            return None
        milliseconds = int(self._seconds * 1000)
        async with asyncio.timeout(1.0):
            left = await self._client.eval(_TAKE, 2, _lease(key), _wake(key), token, milliseconds)
        self._breaker.succeeded()
        if left is None:
            return True
        wait = max(0.05, min(left, milliseconds) / 1000)
        async with asyncio.timeout(wait + 1.0):
            await self._client.execute_command("BLMOVE", _wake(key), _wake(key), "LEFT", "LEFT", wait)  # type: ignore[no-untyped-call]  # redis-py
        return False

    async def _renew(self, key: str, token: str) -> None:
        """Prolong the lease at a third of its time, so that two failed tries do not lose it."""
        while True:
            await asyncio.sleep(self._seconds / 3)
            try:
                async with asyncio.timeout(self._seconds / 3):
                    await self._client.eval(_RENEW, 1, _lease(key), token, int(self._seconds * 1000))
            except (RedisError, OSError, TimeoutError):
                self._observer.cache_fault("lease")

    async def _release(self, key: str, token: str) -> None:
        try:
            async with asyncio.timeout(1.0):
                await self._client.eval(_RELEASE, 2, _lease(key), _wake(key), token, int(self._seconds * 1000))
        except (RedisError, OSError, TimeoutError):
            self._observer.cache_fault("lease")  # it ends by itself


def _lease(key: str) -> str:
    return f"ovsam:{{{key}}}#lease"


def _wake(key: str) -> str:
    return f"ovsam:{{{key}}}#wake"
