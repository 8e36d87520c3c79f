"""What can go wrong for a caller of the service.

ClientError
├── RequestFailed   the service answered with an error; `code` is the public one
└── Unreachable     no answer came, after all retries
"""


class ClientError(Exception):
    """Base of the client's failures."""


class Unreachable(ClientError):
    """The service did not answer."""


class RequestFailed(ClientError):
    """The service refused or failed; `code`, `pointer` and `request_id` are its own words."""

    def __init__(
        self, detail: str, *, code: str, status: int = 0, pointer: str | None = None, request_id: str = ""
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.detail = detail
        self.code = code
        self.status = status
        self.pointer = pointer
        self.request_id = request_id
