"""Where each project's Label Studio is, the token it gave us, and how an image is fetched with both."""

import base64
import json
import time
from collections import OrderedDict
from dataclasses import dataclass
from urllib.parse import urlsplit

from service.core.errors import FetchRefused, InvalidRequest
from service.transports.fetching import Fetch, decode_data_uri

_MAX_PROJECTS = 1000
_ACCESS_SECONDS = 60.0  # Label Studio's access tokens live for five minutes
_CLOUD = ("s3", "gs", "azure-blob")


@dataclass(frozen=True, slots=True)
class Access:
    """A Label Studio's address and its API token; empty where unknown."""

    hostname: str = ""
    token: str = ""


class Projects:
    """What `/setup` said of each project; an operator's own `fixed` address and token stand over it.

    Kept in this process only, since tokens have no place in a cache: with several replicas give a `fixed` one.
    """

    def __init__(self, fixed: Access | None = None) -> None:
        self._fixed = fixed or Access()
        self._known: OrderedDict[str, Access] = OrderedDict()
        self._bearers: dict[Access, tuple[str, float]] = {}

    def set_up(self, project: str, access: Access) -> None:
        """Remember a project, and forget the one that was set up longest ago when there are too many."""
        self._known[project] = access
        self._known.move_to_end(project)
        if len(self._known) > _MAX_PROJECTS:
            self._known.popitem(last=False)

    def forget(self, project: str) -> None:
        """Drop a project's token."""
        self._known.pop(project, None)

    def find(self, project: str) -> Access:
        """The access of a project, empty when it was never set up here."""
        known = self._known.get(project, Access())
        return Access(self._fixed.hostname or known.hostname, self._fixed.token or known.token)

    async def authorization(self, access: Access, fetch: Fetch) -> dict[str, str]:
        """The header for the token: a personal token (a JWT) is exchanged for a short-lived one first."""
        if not access.token:
            return {}
        if access.token.count(".") != 2:
            return {"authorization": f"Token {access.token}"}
        bearer, until = self._bearers.get(access, ("", 0.0))
        if time.monotonic() > until:
            bearer = await _refresh(access, fetch)
            self._bearers.clear()  # there are a few at most: this keeps none for long
            self._bearers[access] = bearer, time.monotonic() + _ACCESS_SECONDS
        return {"authorization": f"Bearer {bearer}"}

    async def load_image(self, source: object, *, project: str, task: int | str | None, fetch: Fetch) -> bytes:
        """The image that a task's field names: a path or URL, cloud storage behind Label Studio, or a data URI."""
        if not isinstance(source, str) or not source:
            raise InvalidRequest("the task has no image in the field that the labelling config names")
        if source.startswith("data:"):
            return decode_data_uri(source)
        access = self.find(project)
        url = _absolute(source, access.hostname, task)
        own = bool(access.hostname) and _origin(url) == _origin(access.hostname)
        return await fetch(url, headers=await self.authorization(access, fetch) if own else {})


def _absolute(source: str, hostname: str, task: int | str | None) -> str:
    scheme, separator, _ = source.partition("://")
    if separator and scheme in ("http", "https"):
        return source
    if not hostname:
        raise InvalidRequest("Label Studio's address is not known: save the model's settings in Label Studio once more")
    if separator and scheme in _CLOUD:
        uri = base64.urlsafe_b64encode(source.encode()).decode()
        return f"{hostname.rstrip('/')}/tasks/{task}/presign/?fileuri={uri}"
    if source.startswith("/"):
        return hostname.rstrip("/") + source
    raise FetchRefused("the image's address is neither a path, nor an http(s) URL, nor a data URI")


async def _refresh(access: Access, fetch: Fetch) -> str:
    answer = await fetch(
        f"{access.hostname.rstrip('/')}/api/token/refresh",
        headers={"content-type": "application/json"},
        body=json.dumps({"refresh": access.token}).encode(),
    )
    try:
        return str(json.loads(answer)["access"])
    except (ValueError, KeyError, TypeError) as error:
        raise FetchRefused("Label Studio did not exchange the personal token") from error


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError as error:
        raise InvalidRequest("the image's address cannot be read") from error
