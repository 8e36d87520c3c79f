"""What no well-behaved client sends, to a real gateway: each is refused as documented, and the gateway serves on."""

import asyncio
import base64
import io
import itertools
import json
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from service.adapters.keys import line_of, new_key
from tests.end_to_end.gateway import SAMPLES, Gateway, running_gateway
from tests.end_to_end.raw_http import connect, drain, flood, head, send

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


@pytest.fixture(scope="module")
def site() -> Iterator[int]:
    """A listed server that redirects; its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, site: int) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("abuse")
    keys = folder / "keys"
    keys.write_text(line_of(KEY, tenant="acme"))
    settings = {
        "api_keys_file": str(keys),
        "upload_seconds": str(UPLOAD_SECONDS),
        "max_bodies_mib": "128",
        "fetch_allow": f"127.0.0.1:{site}",
    }
    with running_gateway(folder, **settings) as running:
        yield running


@pytest.fixture
def http(gateway: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=60, headers={"x-api-key": KEY}) as client:
        yield client


@pytest.fixture(autouse=True)
def serves_on(gateway: Gateway) -> Iterator[None]:
    """After each abuse the gateway lives, segments, and has let go of the memory."""
    before = gateway.resident_bytes()
    yield
    with httpx.Client(base_url=gateway.url, timeout=60, headers={"x-api-key": KEY}) as client:
        request = b'{"prompts":[{"points":[{"x":340,"y":200}]}],"classify":null}'
        answer = client.post("/v1/segment", files={"image": COFFEE, "request": (None, request)})
        assert answer.status_code == 200
        assert answer.json()["results"][0]["area"] > 0
    assert gateway.process.poll() is None
    assert gateway.resident_bytes() - before < 300 * MIB


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


def test_many_heads_that_never_end_hold_nobody_up_and_are_hung_up_on(gateway: Gateway, http: httpx.Client) -> None:
    connections = [connect(gateway) for _ in range(200)]
    for index, connection in enumerate(connections):
        if index % 2:
            connection.sendall(b"POST /v1/segment HTTP/1.1\r\nhost: gateway\r\nx-slow: ")
    started = time.monotonic()
    assert http.get("/v1/models").status_code == 200
    assert time.monotonic() - started < 5
    while time.monotonic() - started < 8:  # a byte now and then keeps no connection open
        for connection in connections[1::2]:
            connection.sendall(b"a")
        time.sleep(0.5)
    for connection in connections:
        assert drain(connection) == b""
        connection.close()
    assert time.monotonic() - started < 25


def test_a_body_that_trickles_is_told_so_and_hung_up_on(gateway: Gateway) -> None:
    parts = itertools.chain([head("POST", "/v1/images", AUTH, "content-length: 1000000")], itertools.repeat(b"a"))
    answer = send(gateway, parts, pause=0.2)
    assert answer.status == 408
    assert b'"code":"slow-upload"' in answer.content
    assert UPLOAD_SECONDS <= answer.seconds < UPLOAD_SECONDS + 15


def test_a_head_without_end_is_refused(gateway: Gateway) -> None:
    parts = itertools.chain([b"GET / HTTP/1.1\r\n"], (b"x-%d: %b\r\n" % (n, b"a" * 1000) for n in range(1_000_000)))
    assert send(gateway, parts).seconds < 15


def test_an_endless_body_without_a_key_is_neither_kept_nor_read_for_ever(gateway: Gateway) -> None:
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"

    def abuse() -> None:
        with connect(gateway) as connection:
            connection.sendall(head("POST", "/v1/images", "transfer-encoding: chunked"))
            started = time.monotonic()
            with suppress(ConnectionError):
                while time.monotonic() - started < 60:
                    connection.sendall(chunk)
            assert time.monotonic() - started < 30

    assert peak_growth(gateway, abuse) < 50 * MIB


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_33_mib_is_refused(gateway: Gateway, http: httpx.Client, chunked: bool) -> None:  # noqa: FBT001
    content = bytes(33 * MIB)

    def abuse() -> None:
        body = (content[start : start + MIB] for start in range(0, len(content), MIB)) if chunked else content
        check_problem(http.post("/v1/images", content=body), 413, "too-large")

    assert peak_growth(gateway, abuse) < 150 * MIB


def test_all_bodies_together_are_bounded_and_a_click_still_gets_in(gateway: Gateway, http: httpx.Client) -> None:
    """Twenty uploads of 30 MiB at once are 600 MiB, where 128 may be in hand."""
    image = http.post("/v1/images", content=COFFEE).json()["image"]

    def upload(_: int) -> int:
        with httpx.Client(base_url=gateway.url, timeout=60, headers={"x-api-key": KEY}) as client:
            return client.post("/v1/images", content=bytes(30 * MIB)).status_code

    def abuse() -> None:
        with ThreadPoolExecutor(20) as pool:
            uploads = pool.map(upload, range(20))
            body = {"image": image, "prompts": [{"points": [{"x": 340, "y": 200}]}], "classify": None}
            assert http.post("/v1/segment", json=body).status_code == 200
            assert set(uploads) <= {415, 503, 408}

    assert peak_growth(gateway, abuse) < 500 * MIB


def test_ten_thousand_tiny_requests_are_all_answered(gateway: Gateway) -> None:
    request = head("POST", "/v1/segment", AUTH, "content-length: 2") + b"{}"

    def abuse() -> None:
        started = time.monotonic()
        assert asyncio.run(flood(gateway, request, count=10_000)) == {400: 10_000}
        print(f"10,000 requests in {time.monotonic() - started:.1f} s")

    assert peak_growth(gateway, abuse) < 100 * MIB


def many(item: bytes) -> bytes:
    """31 MiB of one item after another."""
    return b",".join([item] * (31 * MIB // (len(item) + 1)))


JSON_BOMBS = {
    "prompts": b'{"prompts":[' + many(b'{"points":[{"x":1,"y":1}]}') + b"]}",
    "points": b'{"prompts":[{"points":[' + many(b'{"x":1,"y":1}') + b"]}]}",
    "names": b'{"prompts":[],"classify":{"names":[' + many(b'"a"') + b"]}}",
    "numbers": b'{"prompts":[' + many(b"1") + b"]}",
}


@pytest.mark.parametrize("bomb", JSON_BOMBS)
@pytest.mark.parametrize("path", ["/v1/segment", "/v1/segment/everything", "/integrations/cvat"])
def test_json_of_a_million_items_is_refused_before_it_is_parsed(
    gateway: Gateway, http: httpx.Client, path: str, bomb: str
) -> None:
    def abuse() -> None:
        started = time.monotonic()
        check_problem(http.post(path, content=JSON_BOMBS[bomb]), 413, "too-large")
        assert time.monotonic() - started < 10

    assert peak_growth(gateway, abuse) < 150 * MIB


def test_other_json_that_is_heavy_is_refused(gateway: Gateway, http: httpx.Client) -> None:
    names = b'{"names":[' + many(b'"a"') + b"]}"
    tasks = b'{"label_config":"<View/>","tasks":[' + many(b'{"data":{}}') + b"]}"

    def abuse() -> None:
        check_problem(http.post("/v1/segment", content=b'{"prompts":' + b"[" * (10 * MIB)), 400, "malformed")
        check_problem(http.put("/v1/vocabularies/mine", content=names), 413, "too-large")
        check_problem(http.post("/integrations/label-studio/predict", content=tasks), 413, "too-large")
        parts: dict[str, Any] = {"image": COFFEE, "request": (None, JSON_BOMBS["prompts"][: 15 * MIB])}
        check_problem(http.post("/v1/segment", files=parts), 413, "too-large")

    assert peak_growth(gateway, abuse) < 250 * MIB


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, pixels: bytes, *extra: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG whose pixel data are `pixels` compressed, whatever its header says."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def zeros(mebibytes: int) -> bytes:
    """As many zeros, compressed to a thousandth."""
    packer = zlib.compressobj(9)
    return b"".join([packer.compress(bytes(MIB)) for _ in range(mebibytes)]) + packer.flush()


def zip_bomb() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(100 * MIB))
    return stream.getvalue()


def tiff_bomb(width: int, height: int) -> bytes:
    """A TIFF of few bytes whose header says that it is large."""
    stream = io.BytesIO()
    Image.new("1", (64, 64)).save(stream, "TIFF")
    content = stream.getvalue()
    for tag, size in ((256, width), (257, height), (278, height)):
        at = content.find(struct.pack("<HHI", tag, 4, 1))
        if at >= 0:
            content = content[: at + 8] + struct.pack("<I", size) + content[at + 12 :]
    return content


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


BOMBS: dict[str, tuple[Callable[[], bytes], set[int]]] = {
    "a zip of 100 MiB": (zip_bomb, {415}),
    "zeros compressed": (lambda: zeros(300), {415}),
    "a PNG of 2.5 gigapixels": (lambda: png(50_000, 50_000, zeros(300), depth=1, colour=0), {413}),
    "a PNG of 2 gigapixels by 1": (lambda: png(2**31 - 1, 1, zeros(1)), {413}),
    "a small PNG with 300 MiB of pixels": (lambda: png(64, 64, zeros(300)), {201}),
    "a PNG with 300 MiB of text": (lambda: png(64, 64, zeros(1), chunk(b"zTXt", b"a\0\0" + zeros(300))), {415}),
    "a PNG with a profile of 300 MiB": (
        lambda: png(64, 64, zeros(1), chunk(b"iCCP", b"a\0\0" + zeros(300))),
        {415, 201},
    ),
    "a TIFF of 1.6 gigapixels": (lambda: tiff_bomb(40_000, 40_000), {413}),
    "a TIFF of 45 megapixels in few bytes": (lambda: tiff_bomb(9_000, 5_000), {415}),
    "a TIFF of 40 megapixels, compressed": (
        lambda: saved(Image.new("RGB", (8_000, 5_000)), "TIFF", compression="tiff_deflate"),
        {201},
    ),
    "a GIF of 4 gigapixels": (
        lambda: b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b",\0\0\0\0\xff\xff\xff\xff\0\x02\0;",
        {413},
    ),
    "a WebP of 49 megapixels": (lambda: saved(Image.new("RGB", (7_000, 7_000)), "WEBP", lossless=True), {201}),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_goes_off_harmlessly(gateway: Gateway, http: httpx.Client, bomb: str) -> None:
    make, statuses = BOMBS[bomb]
    content = make()

    def abuse() -> None:
        answer = http.post("/v1/images", content=content)
        assert answer.status_code in statuses, answer.text
        if answer.is_error:
            assert answer.json()["code"] in {"too-large", "not-an-image"}

    assert len(content) < 2 * MIB
    growth = peak_growth(gateway, abuse)
    print(f"{bomb}: {len(content)} bytes, {growth / MIB:.0f} MiB at the height")
    assert growth < 1200 * MIB


def test_large_images_at_once_are_decoded_one_after_another(gateway: Gateway) -> None:
    """Each takes some 500 MiB while it is decoded, also after its caller has given up."""

    def upload(seed: int) -> int:
        content = saved(Image.new("RGB", (7_000, 7_000), (seed, 0, 0)), "PNG")
        with httpx.Client(base_url=gateway.url, timeout=120, headers={"x-api-key": KEY}) as client:
            return client.post("/v1/images", content=content).status_code

    def abuse() -> None:
        with ThreadPoolExecutor(12) as pool:
            assert set(pool.map(upload, range(12))) <= {201, 503, 504}

    assert peak_growth(gateway, abuse) < 1200 * MIB


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
