"""One HTTP call, and waiting for something to happen."""

import http.client
import time
from collections.abc import Callable

ADDRESS = "127.0.0.1"
PATIENCE = 120.0  # seconds for one thing to happen, on a busy machine too


class DrillFailed(Exception):
    """Something did not happen, or did that must not; the message says what."""


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Status and body; raises OSError, HTTPException."""
    connection = http.client.HTTPConnection(ADDRESS, port, timeout=40)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def wait_for(what: str, happened: Callable[[], bool], *, seconds: float = PATIENCE) -> float:
    """The seconds until it happened; raises DrillFailed."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        try:
            if happened():
                return time.monotonic() - started
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.1)
    raise DrillFailed(f"{what}: not within {seconds:.0f} s")
