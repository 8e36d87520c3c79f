"""A Nuclio function that hands CVAT's calls on to the service, for installations that already run Nuclio."""

import json
import os
import urllib.error
import urllib.request
from typing import Any


def init_context(context: Any) -> None:
    context.user_data.url = os.environ["OVSAM_URL"]
    context.user_data.headers = {"content-type": "application/json"}
    if key := os.environ.get("OVSAM_KEY"):
        context.user_data.headers["x-api-key"] = key


def handler(context: Any, event: Any) -> Any:
    """The service's answer, its status included: a problem document tells CVAT's log what was wrong."""
    content = event.body if isinstance(event.body, bytes) else json.dumps(event.body).encode()  # Nuclio reads JSON
    request = urllib.request.Request(
        context.user_data.url, data=content, headers=context.user_data.headers, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            status, body = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, body = error.code, error.read()
    return context.Response(body=body, headers={}, content_type="application/json", status_code=status)
