"""Log lines: one form for all loggers, a request's id on each of its lines, no whole URL and no key."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from service.adapters.keys import new_key
from service.logs import JsonFormatter, RequestRecord, TextFormatter, current_request, log_request, redact

SECRET = "hunter2hunter2"


class Lines:
    """A logger that writes to memory."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.setFormatter(formatter)

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    def json(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture(params=[JsonFormatter, TextFormatter])
def either(request: pytest.FixtureRequest) -> Iterator[Lines]:
    yield from attached(request.param())


@pytest.fixture
def lines() -> Iterator[Lines]:
    yield from attached(JsonFormatter())


@pytest.fixture
def text() -> Iterator[Lines]:
    yield from attached(TextFormatter())


def attached(formatter: logging.Formatter) -> Iterator[Lines]:
    made, root = Lines(formatter), logging.getLogger("service")
    level = root.level
    root.addHandler(made.handler)
    root.setLevel(logging.INFO)
    yield made
    root.removeHandler(made.handler)
    root.setLevel(level)


def ended(**known: str) -> RequestRecord:
    record = RequestRecord("r-1", method="POST", route="/v1/segment", code="ok", status="200", tenant="acme")
    record.image, record.seconds, record.stages = "sha256:0123456789abcdef", 0.0421, {"decode": 0.0121, "queue": 0.0}
    for name, value in known.items():
        setattr(record, name, value)
    return record


def test_a_request_is_one_object_with_its_stages_and_a_part_of_its_digest(lines: Lines) -> None:
    log_request(ended())
    (line,) = lines.json()
    assert str(line.pop("time")).endswith("Z")
    assert line == {
        "level": "info",
        "logger": "service.requests",
        "message": "POST /v1/segment 200 ok",
        "request_id": "r-1",
        "method": "POST",
        "route": "/v1/segment",
        "status": "200",
        "code": "ok",
        "tenant": "acme",
        "image": "0123456789ab",
        "milliseconds": 42.1,
        "stages": {"decode": 12.1, "queue": 0.0},
    }


def test_the_same_for_eyes(text: Lines) -> None:
    log_request(ended())
    line = text.text.strip()
    assert "INFO service.requests POST /v1/segment 200 ok request_id=r-1 tenant=acme image=0123456789ab" in line
    assert line.endswith("milliseconds=42.1 decode=12.1ms queue=0.0ms")


def test_a_probe_that_succeeds_is_no_news(lines: Lines) -> None:
    log_request(ended(route="/readyz"))
    log_request(ended(route="/readyz", code="backend-unavailable", status="503"))
    assert [line["code"] for line in lines.json()] == ["backend-unavailable"]


def test_a_line_on_the_way_carries_the_request_of_its_context(lines: Lines) -> None:
    token = current_request.set(RequestRecord("r-2"))
    logging.getLogger("service.anything").info("half way")
    current_request.reset(token)
    logging.getLogger("service.anything").info("by itself")
    inside, outside = lines.json()
    assert (inside["request_id"], inside["message"]) == ("r-2", "half way")
    assert "request_id" not in outside


def test_an_exception_stays_in_its_object(lines: Lines) -> None:
    try:
        int(f"https://bucket/cat.jpg?signature={SECRET}")
    except ValueError:
        logging.getLogger("service.anything").exception("failed")
    (line,) = lines.json()
    assert "'https://bucket/...'" in str(line["exception"])
    assert SECRET not in lines.text


@pytest.mark.parametrize(
    "words",
    [
        f"GET https://bucket.example/a/cat.jpg?X-Amz-Signature={SECRET} failed",
        f"redis://:{SECRET}@redis:6379/0 is gone",
        f"https://user:{SECRET}@example.org",
        f"Authorization: Bearer {SECRET}",
        f"authorization: Token {SECRET}",
    ],
)
def test_no_formatter_lets_a_secret_out(either: Lines, words: str) -> None:
    logging.getLogger("service.anything").warning("%s", words)
    assert either.text
    assert SECRET not in either.text


def test_where_a_call_went_stays_readable() -> None:
    assert redact("page http://127.0.0.1:8000/ is up") == "page http://127.0.0.1:8000/ is up"
    assert redact("see http://host:80/a/b?c=d, then go on") == "see http://host:80/... then go on"
    assert redact("the token is missing") == "the token is missing"


def test_a_key_of_ours_is_known_wherever_it_stands() -> None:
    key = new_key()
    assert (
        redact(f"the path /v1/{key} is not there, nor is {key}.")
        == "the path /v1/ovsam_... is not there, nor is ovsam_...."
    )


def test_a_caller_cannot_forge_a_line(text: Lines) -> None:
    logging.getLogger("service.anything").warning("no prediction for task %s", "1\n2026 INFO all is well")
    assert text.text.count("\n") == 1
