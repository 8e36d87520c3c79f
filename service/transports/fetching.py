"""Images that a request names instead of bringing them: URLs under the operator's policy, and data URIs."""

import base64
import binascii
from collections.abc import Mapping
from typing import Protocol

from service.core.errors import FetchRefused, InvalidRequest


class Fetch(Protocol):
    """Fetches a URL within the operator's policy and limits."""

    async def __call__(self, url: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> bytes:
        """The content, by POST when there is a body; `headers` go to the URL's own origin only. Raises FetchRefused."""
        ...


async def fetch_nothing(
    url: str,  # noqa: ARG001 - the signature is Fetch's
    *,
    headers: Mapping[str, str] | None = None,  # noqa: ARG001
    body: bytes | None = None,  # noqa: ARG001
) -> bytes:
    """The policy of a server that may not call others."""
    raise FetchRefused("fetching images from URLs is off on this server", pointer="/image/url")


def decode_data_uri(uri: str) -> bytes:
    """The bytes of `data:<type>;base64,<data>`; raises InvalidRequest."""
    head, _, data = uri.partition(",")
    if not head.endswith(";base64"):
        raise InvalidRequest("a data URI needs the form data:<type>;base64,<data>")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest("the data URI is not base64") from error
