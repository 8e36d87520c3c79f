"""When a failed request is tried again: only where nothing was done or doing it twice does no harm."""

import email.utils
import random
import time
from dataclasses import dataclass

import httpx

_TEMPORARY = frozenset({429, 502, 503})


@dataclass(frozen=True, slots=True)
class Retries:
    """At most `attempts`, after pauses that double from `first` seconds and never exceed `longest`.

    The service's own Retry-After goes before; when it is longer than `longest`, the failure is told at once.
    """

    attempts: int = 6
    first: float = 0.25
    longest: float = 30.0

    def pause(self, attempt: int, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """Seconds to wait after failed attempt number `attempt` (from 1); None to give up."""
        temporary = isinstance(outcome, httpx.TransportError) or outcome.status_code in _TEMPORARY
        if not temporary or attempt >= self.attempts:
            return None
        asked = None if isinstance(outcome, httpx.TransportError) else retry_after(outcome)
        if asked is not None:
            return asked if asked <= self.longest else None
        doubled: float = self.first * 2 ** (attempt - 1)
        return min(self.longest, doubled) * random.uniform(0.5, 1.0)  # noqa: S311 - spreads callers, keeps no secret


def retry_after(response: httpx.Response) -> float | None:
    """Seconds that the service asks to wait, given as a number or as a date."""
    text = response.headers.get("retry-after", "").strip()
    if text.replace(".", "", 1).isdigit():
        return float(text)
    parsed = email.utils.parsedate_tz(text)
    return max(0.0, email.utils.mktime_tz(parsed) - time.time()) if parsed else None
