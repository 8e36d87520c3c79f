"""A circuit breaker: after failures in a row a dead neighbour is left alone for a while, so that it costs nothing."""

import time
from collections.abc import Callable


class Breaker:
    """Opens after `failures` in a row for `seconds`, then lets one call through to try."""

    def __init__(self, *, failures: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = failures
        self._seconds = seconds
        self._clock = clock
        self._failures = 0
        self._open_until = 0.0

    @property
    def open(self) -> bool:
        """Whether calls should be left out now; a trial call goes through when the time is over."""
        if self._failures < self._limit:
            return False
        if self.resting:
            return True
        self._open_until = self._clock() + self._seconds
        return False

    @property
    def resting(self) -> bool:
        """Whether calls are left out and no trial is due; takes no trial, for who asks long before the call."""
        return self._failures >= self._limit and self._clock() < self._open_until

    def succeeded(self) -> None:
        """The neighbour answered."""
        self._failures = 0

    def failed(self) -> None:
        """The neighbour did not answer."""
        self._failures += 1
        self._open_until = self._clock() + self._seconds
