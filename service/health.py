"""`python -m service.health`: whether the service on this machine lives. The container image's health check.

It reads two variables by itself: building all Settings would cost each check, of which there is one every few seconds,
about five times the processor time.
"""

import http.client
import os
import ssl
import sys
from collections.abc import Mapping

PORT = 8000
_SECONDS = 4.0


def fault(environment: Mapping[str, str]) -> str | None:
    """What is wrong with the service of these OVSAM_PORT and OVSAM_TLS_CERT; None when it answers /healthz with 200."""
    connection = _connection(int(environment.get("OVSAM_PORT", PORT)), tls=bool(environment.get("OVSAM_TLS_CERT")))
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"no answer from port {connection.port}: {error!r}"
    finally:
        connection.close()
    return None if status == http.client.OK else f"/healthz answered {status}"


def _connection(port: int, *, tls: bool) -> http.client.HTTPConnection:
    if not tls:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    context = ssl.create_default_context()
    context.check_hostname = False  # the certificate is for the name that callers use, and this is our own process
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=_SECONDS, context=context)


if __name__ == "__main__":
    sys.exit(fault(os.environ))
