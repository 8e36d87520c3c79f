"""Requests made up from the description of the interface, right ones and wrong ones: no answer is undescribed.

The requests repeat from run to run. Half of them are made to fit the one picture that is known.
"""

import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.fakes import FakeBackend
from tests.http_service import fake_app, picture

ASKED = (  # with parameters or a body, which can be right or wrong
    "POST /v1/images",
    "HEAD /v1/images/{digest}",
    "DELETE /v1/images/{digest}",
    "POST /v1/segment",
    "POST /v1/segment/everything",
    "GET /v1/vocabularies/{name}",
    "PUT /v1/vocabularies/{name}",
    "DELETE /v1/vocabularies/{name}",
)
PLAIN = ("GET /v1/models", "GET /v1/vocabularies", "GET /healthz", "GET /readyz", "GET /metrics")
ANSWERED = {"POST /v1/images", "POST /v1/segment", "POST /v1/segment/everything", "PUT /v1/vocabularies/{name}", *PLAIN}
EXAMPLES = 20  # of each kind, for each operation
HELD = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
Schema = schemathesis.schemas.BaseSchema


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app over the fake network, on a port of its own."""
    app = fake_app(tmp_path_factory.mktemp("openapi"), backend=FakeBackend())
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        thread.join(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def schema(url: str) -> Schema:
    return schemathesis.openapi.from_url(f"{url}/openapi.json")


def test_every_operation_is_tried(schema: Schema) -> None:
    described = schema.raw_schema["paths"]
    assert {f"{method.upper()} {path}" for path, methods in described.items() for method in methods} == {*ASKED, *PLAIN}


def test_whatever_is_referred_to_is_there(schema: Schema) -> None:
    referred = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(schema.raw_schema)))
    assert referred == set(schema.raw_schema["components"]["schemas"])


@pytest.fixture(scope="module")
def known(url: str) -> str:
    return str(httpx.post(f"{url}/v1/images", content=picture()).json()["image"])


@pytest.mark.parametrize(
    ("operation", "mode"),
    [(operation, mode) for mode in GenerationMode for operation in ASKED]
    + [(operation, GenerationMode.POSITIVE) for operation in PLAIN],  # nothing can be asked wrongly
)
def test_every_answer_is_described(schema: Schema, known: str, operation: str, mode: GenerationMode) -> None:
    method, path = operation.split()
    statuses = set()

    @settings(
        max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=schema[path][method].as_strategy(generation_mode=mode), fits=st.booleans())
    def ask(case: Case[Any], *, fits: bool) -> None:
        if fits and case.media_type == "application/json" and isinstance(case.body, dict) and "url" not in case.body:
            fit(case.body, known)
        statuses.add(case.call_and_validate(checks=HELD).status_code)

    ask()
    assert statuses & {200, 201, 204} or mode is GenerationMode.NEGATIVE or operation not in ANSWERED


def fit(body: dict[str, Any], image: str) -> None:
    """Let a request name the picture and a vocabulary that there are, and point inside: else most are refused."""
    if "names" not in body:
        body["image"] = image
    if isinstance(body.get("classify"), dict):
        body["classify"] |= {"vocabulary": "common", "names": None}
    for prompt in body.get("prompts") or ():
        if isinstance(prompt, dict):
            prompt |= {"points": [{"x": 12, "y": 12}], "box": None, "mask_ref": None}
