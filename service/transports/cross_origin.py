"""What pages of other origins may do, once an operator has named the origins."""

from typing import TypedDict


class Cors(TypedDict):
    """Starlette's own names."""

    allow_methods: list[str]
    allow_headers: list[str]
    expose_headers: list[str]


# Credentials are left out: the service knows no cookies, and a key is sent by the page itself.
CORS: Cors = {
    "allow_methods": ["GET", "HEAD", "POST", "PUT", "DELETE"],
    "allow_headers": [
        "authorization",
        "content-type",
        "prefer",
        "traceparent",
        "x-api-key",
        "x-image-digest",
        "x-request-id",
    ],
    "expose_headers": ["etag", "retry-after", "server-timing", "x-request-id"],
}
