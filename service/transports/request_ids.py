"""The id under which a request is found in the operator's log."""

import re
import uuid

_HARMLESS = re.compile(r"^[A-Za-z0-9._-]{1,128}$")


def request_id(given: str) -> str:
    """The client's own id when it is harmless in logs and headers, else a new one."""
    return given if _HARMLESS.match(given) else uuid.uuid4().hex
