"""Small files and short lists that would take much memory or time."""

import io
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.end_to_end.abuse.victim import COFFEE, KEY, MIB, check_problem, peak_growth
from tests.end_to_end.gateway import Gateway


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
