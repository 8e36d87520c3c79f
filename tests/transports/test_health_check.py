"""The image's health check against servers that answer well, badly, over TLS and not at all."""

import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from service.health import PORT, fault
from service.settings import Settings
from service.settings_page import variable
from tests.certificates import make_certificates


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class _Unwell(_Answer):
    def do_GET(self) -> None:
        self.send_error(503)


class _Gibberish(_Answer):
    def do_GET(self) -> None:
        self.wfile.write(b"what?\r\n\r\n")


@contextmanager
def serving(answer: type[_Answer], *, tls: ssl.SSLContext | None = None) -> Iterator[dict[str, str]]:
    """A server on a free port, and the variables that lead to it."""
    with HTTPServer(("127.0.0.1", 0), answer) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield {variable("port"): str(server.server_port)}
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """One that no machine trusts."""
    made = make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server, made.server_key)
    return made.server, context


def test_a_service_that_answers_is_well_over_http_and_over_tls(certificate: tuple[Path, ssl.SSLContext]) -> None:
    path, context = certificate
    with serving(_Answer) as environment:
        assert fault(environment | {variable("tls_cert"): ""}) is None
        assert "SSL" in str(fault(environment | {variable("tls_cert"): str(path)}))
    with serving(_Answer, tls=context) as environment:
        assert fault(environment | {variable("tls_cert"): str(path)}) is None


def test_a_service_that_answers_badly_or_not_at_all_is_not() -> None:
    with serving(_Unwell) as environment:
        assert fault(environment) == "/healthz answered 503"
    assert "no answer from port" in str(fault(environment))
    with serving(_Gibberish) as environment:
        assert "BadStatusLine" in str(fault(environment))


def test_the_command_ends_as_a_health_check_must() -> None:
    command = [sys.executable, "-m", "service.health"]
    with serving(_Answer) as environment:
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no answer from port" in done.stderr


def test_what_it_reads_by_itself_is_what_the_settings_say() -> None:
    assert Settings.model_fields["port"].default == PORT
    assert Settings.model_fields["tls_cert"].default is None
