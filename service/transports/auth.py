"""The gate before every transport: whom a request's API key stands for, and whether its rate is used up."""

import base64
import binascii
from collections.abc import Mapping

from service.core.access import Caller, Rate
from service.core.errors import RateLimited, Unauthorized
from service.core.ports import KeyRing, RateLimits

_OPEN = {"/", "/index.html", "/icon.svg", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"}
_OPEN_FOLDERS = ("/css/", "/js/", "/samples/", "/docs/files/")  # the pages' files; the first asks for keys itself


class Gate:
    """Lets a caller in or raises; `rate` is each tenant's, for keys that have none of their own."""

    def __init__(self, keys: KeyRing, rates: RateLimits, *, rate: Rate | None = None) -> None:
        self._keys = keys
        self._rates = rates
        self._rate = rate

    def identify(self, headers: Mapping[str, str]) -> Caller:
        """Whose key came with the headers (names in lower case); raises Unauthorized, which does not repeat it."""
        key = key_of(headers)
        caller = self._keys.find(key)
        if caller is None and key is None:
            raise Unauthorized("this service needs an API key: send Authorization: Bearer KEY, or X-API-Key: KEY")
        if caller is None:
            raise Unauthorized("the API key is not valid, or is no longer")
        return caller

    async def admit(self, headers: Mapping[str, str]) -> Caller:
        """The caller, with one request taken from its rate; raises Unauthorized, RateLimited."""
        caller = self.identify(headers)
        rate = caller.rate or self._rate
        if rate is None:
            return caller
        name = f"key:{caller.key}" if caller.rate else f"tenant:{caller.tenant}"
        wait = await self._rates.take(name, rate)
        if wait > 0:
            raise RateLimited(f"more than {rate.per_second:g} requests a second were made", retry_after=wait)
        return caller


def needs_key(path: str) -> bool:
    """Whether a path is behind the gate: all are but health, metrics, the description of the interface and the page."""
    return path not in _OPEN and not path.startswith(_OPEN_FOLDERS)


def key_of(headers: Mapping[str, str]) -> str | None:
    """The API key: in X-API-Key, as a bearer token, or as the password of HTTP Basic, which labelling tools send."""
    key = headers.get("x-api-key")
    if key:
        return key
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip() or None
    if scheme.lower() == "basic":
        return _password(credentials.strip())
    return None


def _password(credentials: str) -> str | None:
    try:
        _, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return password or None
