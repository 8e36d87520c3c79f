"""URLs that lead inside, paths that lead out, and headers and words that would write what they should not."""

import base64
import json

import httpx
import pytest

from tests.end_to_end.abuse.victim import AUTH, Site, check_problem
from tests.end_to_end.gateway import Gateway
from tests.end_to_end.raw_http import head, send

INSIDE = [
    "http://127.0.0.1:{own}/v1/models",
    "http://localhost:{site}/",
    "http://127.0.0.1:1/",
    "http://[::1]:{own}/",
    "http://[::ffff:127.0.0.1]:{own}/",
    "http://[::ffff:7f00:1]:{site}/",
    "http://0.0.0.0:{site}/",
    "http://0177.0.0.1:{site}/",
    "http://2130706433:{site}/",
    "http://127.1:{site}/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://metadata.google.internal/",
    "http://10.0.0.1/",
    "http://127.0.0.1.nip.io:{site}/",
    "http://user@127.0.0.1:{site}/",
    "http://127.0.0.1:{site}@evil.example/",
    "http://evil.example#@127.0.0.1:{site}/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{site}/",
    "ftp://127.0.0.1:{site}/",
    "http://127.0.0.1:{site}\r\nx: y/",
]


@pytest.mark.parametrize("url", INSIDE)
@pytest.mark.parametrize("redirected", [False, True])
def test_no_url_leads_inside(
    gateway: Gateway,
    http: httpx.Client,
    site: int,
    url: str,
    redirected: bool,  # noqa: FBT001
) -> None:
    own = httpx.URL(gateway.url).port
    target = url.replace("{own}", str(own)).replace("{site}", str(site))
    if redirected:
        target = target.replace("\r\n", "%0d%0a")
        named = f"http://127.0.0.1:{site}/{base64.urlsafe_b64encode(target.encode()).decode()}"
    else:
        named = target
    Site.asked.clear()
    body = {"image": {"url": named}, "prompts": [{"points": [{"x": 1, "y": 1}]}]}
    check_problem(http.post("/v1/segment", json=body), 403, "fetch-refused")
    assert len(Site.asked) == redirected, "the server that is not meant is not called"


PATHS = [
    "/../../etc/passwd",
    "/..%2f..%2fetc/passwd",
    "/js/%2e%2e/%2e%2e/http_api.py",
    "/js/..%5c..%5chttp_api.py",
    "/samples/../../services.py",
    "/js//etc/passwd",
    "/js/%00",
    "/v1/vocabularies/..%2f..%2fcommon",
    "/v1/vocabularies/%2e%2e",
    "/v1/images/sha256:../../etc/passwd",
    "/v1/images/sha256:%00",
    "/v1/models%0d%0aset-cookie:%20a=b",
    "/js/%0d%0aset-cookie:%20a=b",
    "http://evil.example/v1/models",
    "/" + "a" * 60_000,
]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:40])
def test_no_path_leads_out(gateway: Gateway, path: str) -> None:
    answer = send(gateway, [head("GET", path, AUTH, "connection: close")])
    assert answer.status in {400, 404, 405} or (answer.status == 200 and b'"models"' in answer.content)
    top, _, body = answer.content.partition(b"\r\n\r\n")
    assert b"set-cookie" not in top.lower()
    assert b"root:" not in body
    assert b"import " not in body


@pytest.mark.parametrize(
    "header",
    [
        "x-request-id: a\r\nset-cookie: a=b",
        "x-request-id: a\rset-cookie: a=b",
        "x-request-id: a\nset-cookie: a=b",
        "x-request-id: a%0d%0aset-cookie: a=b",
        "x-request-id: " + "a" * 10_000,
        "x-request-id: \xe4\xf6",
        "x-request-id: \x1b[31mred",
        "traceparent: 00-" + "a" * 5_000,
        "x-api-key: \xff",
        "authorization: Basic \xff",
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5\r\ntransfer-encoding: chunked",
        "content-length: -1",
        "content-length: 99999999999999999999",
        "transfer-encoding: chunked, identity",
        "host: evil.example",
        "x-forwarded-host: evil.example",
    ],
)
def test_no_header_gets_into_an_answer_or_the_log(gateway: Gateway, header: str) -> None:
    answer = send(gateway, [head("GET", "/v1/models", AUTH, "connection: close", header)])
    assert answer.status in {200, 400, 401, 413}
    top = answer.content.partition(b"\r\n\r\n")[0].lower()
    assert b"set-cookie: a=b" not in top.split(b"\r\n")
    assert b"evil.example" not in answer.content
    assert b"\x1b" not in answer.content
    log = gateway.log.read_bytes()
    assert b"set-cookie" not in log
    assert b"\x1b[31m" not in log


def test_what_a_labelling_request_says_cannot_forge_a_line_of_the_log(gateway: Gateway, http: httpx.Client) -> None:
    forged = "1\n2026-01-01 00:00:00 ERROR forged"
    labels = '<BrushLabels name="b" toName="image"><Label value="cup"/></BrushLabels>'
    config = f'<View><Image name="image" value="$image"/>{labels}</View>'
    task = {"id": forged, "data": {"image": "data:image/png;base64,aGVsbG8="}}
    body = {"project": forged, "label_config": config, "tasks": [task], "params": None}
    http.post("/integrations/label-studio/predict", content=json.dumps(body)).raise_for_status()
    assert not [line for line in gateway.log.read_text().splitlines() if line.startswith("2026-01-01")]
