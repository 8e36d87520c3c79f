"""Rate limits: token buckets in Redis that all gateways share, and in this process where there is no Redis.

A bucket is kept as one number, the time at which it will be full again (the generic cell rate algorithm): a request
moves that time on by 1 / rate, and is refused when it would lie more than a whole bucket ahead.
"""

import asyncio
import time
from collections.abc import Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.adapters.breaker import Breaker
from service.core.access import Rate
from service.core.ports import Observer

# Redis' own clock, so that gateways whose clocks differ agree. Seconds to wait are given as text: Redis cuts numbers.
_TAKE = """
local time = redis.call('time')
local now = time[1] + time[2] / 1000000
local interval = 1 / ARGV[1]
local full = math.max(tonumber(redis.call('get', KEYS[1]) or 0), now) + interval
local wait = full - now - ARGV[2] * interval
if wait > 0.000001 then return string.format('%.6f', wait) end
redis.call('set', KEYS[1], string.format('%.6f', full), 'px', math.ceil((full - now) * 1000))
return '0'"""
_SECONDS = 1.0  # a slow Redis costs a caller no more


class LocalRates:
    """Buckets of this process alone; there are as many as tenants and keys."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full: dict[str, float] = {}

    async def take(self, name: str, rate: Rate) -> float:
        """Take one request from a bucket; 0, or the seconds to wait."""
        now, interval = self._clock(), 1 / rate.per_second
        full = max(self._full.get(name, now), now) + interval
        wait = full - now - rate.burst * interval
        if wait > 1e-6:
            return wait
        self._full[name] = full
        return 0.0


class RedisRates:
    """Buckets in Redis, each behind one here that holds one request more, so that Redis decides on whoever waited.

    A flood is turned away without asking Redis, and while Redis fails each gateway counts for itself: a dead Redis
    neither opens the service nor shuts it.
    """

    def __init__(self, client: Redis, *, observer: Observer) -> None:
        self._client = client
        self._observer = observer
        self._local = LocalRates()
        self._breaker = Breaker(failures=2, seconds=2.0)

    async def take(self, name: str, rate: Rate) -> float:
        """Take one request from a bucket; 0, or the seconds to wait."""
        wait = await self._local.take(name, Rate(rate.per_second, rate.burst + 1))
        if wait > 0 or self._breaker.open:
            return wait
        try:
            wait = await self._take(name, rate)
        except (RedisError, OSError, TimeoutError):
            self._breaker.failed()
            self._observer.cache_fault("rate")
            return 0.0
        self._breaker.succeeded()
        return wait

    async def _take(self, name: str, rate: Rate) -> float:
        async with asyncio.timeout(_SECONDS):
            return float(await self._client.eval(_TAKE, 1, f"ovsam:rate:{name}", rate.per_second, rate.burst))
