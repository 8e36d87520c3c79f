"""API keys: a file of their hashes, read again when it changes, so that keys come and go without a restart.

A line of the file is a JSON object: `tenant` and `sha256` (of the key, in hex), and where wanted `rate` (requests a
second), `burst` and `expires` (ISO 8601 with a time zone). Empty lines and lines that begin with # are passed over.
A plain hash is enough at rest: keys are 256 random bits, which nobody finds by trying.
"""

import hashlib
import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.core.access import PUBLIC, Caller, Rate

_PREFIX = "ovsam_"  # lets a secret scanner and our own log tell a key when they see one
_TENANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")  # it stands in cache keys, before a colon and inside braces
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"tenant", "sha256", "rate", "burst", "expires"}
_NAME_DIGITS = 12  # of the hash, which tell keys apart in a log
_log = logging.getLogger(__name__)


class InvalidKeys(ValueError):
    """The key file cannot be used; says which line and why, never what it holds."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the key file; `expires` in seconds since the epoch."""

    sha256: str
    caller: Caller
    expires: float


class OpenDoor:
    """No keys are set: everybody comes in, as one tenant, whatever key they send."""

    def find(self, key: str | None) -> Caller | None:  # noqa: ARG002 - the port's form
        """The public tenant."""
        return Caller(PUBLIC)


class KeyFile:
    """The keys of a file; looked at once in `fresh_seconds`, and a bad one leaves the old keys in force."""

    def __init__(self, path: Path, *, fresh_seconds: float = 1.0, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._fresh_seconds = fresh_seconds
        self._clock = clock
        self._looked = time.monotonic()
        self._stamp = self._stamp_now()
        self._entries = read_keys(path)

    def find(self, key: str | None) -> Caller | None:
        """The caller whose key this is, unless it has expired."""
        self._refresh()
        if key is None:
            return None
        given, found = sha256_of(key), None
        for entry in self._entries:  # all of them, and each in constant time: how long it takes tells nothing
            if hmac.compare_digest(entry.sha256, given):
                found = entry
        return found.caller if found is not None and self._clock() < found.expires else None

    def _refresh(self) -> None:
        if time.monotonic() - self._looked < self._fresh_seconds:
            return
        self._looked = time.monotonic()
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._entries = read_keys(self._path)
        except (InvalidKeys, OSError) as error:
            _log.error("the API keys stay as they were: %s", error)
            return
        _log.info("read %d API keys", len(self._entries))

    def _stamp_now(self) -> tuple[int, ...]:
        """What changes with the file; a mounted Secret is another file after each change."""
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_ino, found.st_size


def new_key() -> str:
    """A key that was never given to anybody."""
    return _PREFIX + secrets.token_urlsafe(32)


def sha256_of(key: str) -> str:
    """What is kept of a key, in hex."""
    return hashlib.sha256(key.encode()).hexdigest()


def line_of(
    key: str, *, tenant: str, rate: float | None = None, burst: int | None = None, expires: datetime | None = None
) -> str:
    """A key's line for the file; raises InvalidKeys."""
    until = expires.astimezone(UTC).isoformat(timespec="seconds") if expires else None
    wanted = {"tenant": tenant, "sha256": sha256_of(key), "rate": rate, "burst": burst, "expires": until}
    fields = {name: value for name, value in wanted.items() if value is not None}
    _entry(fields)
    return json.dumps(fields)


def read_keys(path: Path) -> list[Entry]:
    """All keys of a file; raises InvalidKeys or OSError."""
    entries: dict[str, Entry] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            entry = _entry(json.loads(line))
        except ValueError as error:
            reason = "it is not JSON" if isinstance(error, json.JSONDecodeError) else error
            raise InvalidKeys(f"line {number} of {path}: {reason}") from None
        if entry.sha256 in entries:
            raise InvalidKeys(f"line {number} of {path}: the same key stands in an earlier line")
        entries[entry.sha256] = entry
    return list(entries.values())


def _entry(fields: Any) -> Entry:
    if not isinstance(fields, dict) or not {"tenant", "sha256"} <= fields.keys() <= _FIELDS:
        raise InvalidKeys(
            f"it needs tenant and sha256, and may have {', '.join(sorted(_FIELDS - {'tenant', 'sha256'}))}"
        )
    tenant, sha256 = fields["tenant"], fields["sha256"]
    if not isinstance(tenant, str) or not _TENANT.fullmatch(tenant):
        raise InvalidKeys("a tenant is 1 to 63 of a-z, 0-9, dot, dash and underscore")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise InvalidKeys("sha256 is 64 hex digits in lower case")
    caller = Caller(tenant, sha256[:_NAME_DIGITS], _rate(fields))
    return Entry(sha256, caller, _expires(fields.get("expires")))


def _rate(fields: dict[str, Any]) -> Rate | None:
    if "rate" not in fields:
        if "burst" in fields:
            raise InvalidKeys("burst needs a rate")
        return None
    rate = fields["rate"]
    if type(rate) not in (int, float) or not 0 < rate < float("inf"):
        raise InvalidKeys("rate is a number above 0")
    burst = fields.get("burst", max(1, round(rate)))
    if type(burst) is not int or burst < 1:
        raise InvalidKeys("burst is a whole number from 1")
    return Rate(float(rate), burst)


def _expires(text: Any) -> float:
    if text is None:
        return float("inf")
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidKeys("expires is a time such as 2030-01-31T00:00:00+00:00, with its zone")
    return moment.timestamp()
