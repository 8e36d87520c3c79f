"""What the tests of abuse know of the gateway that they abuse."""

import base64
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx

from service.adapters.keys import new_key
from tests.end_to_end.gateway import SAMPLES, Gateway

COFFEE = (SAMPLES / "coffee.jpg").read_bytes()
KEY = new_key()
AUTH = f"x-api-key: {KEY}"
UPLOAD_SECONDS = 3
MIB = 2**20


class Site(BaseHTTPRequestHandler):
    """Redirects to wherever its path says, and counts who asks for what."""

    asked: list[str] = []  # noqa: RUF012 - one list for all requests

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(302)
        self.send_header("location", base64.urlsafe_b64decode(self.path[1:]).decode())
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


def peak_growth(gateway: Gateway, abuse: Callable[[], None]) -> int:
    """How many bytes the gateway's resident memory grew at its height."""
    process = Path(f"/proc/{gateway.process.pid}")
    (process / "clear_refs").write_text("5")  # begins the high-water mark anew
    before = gateway.resident_bytes()
    abuse()
    lines = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024 - before


def check_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert KEY not in answer.text
