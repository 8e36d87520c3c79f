"""Heads and bodies that never end, are too large or come ten thousand at a time."""

import asyncio
import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest

from tests.end_to_end.abuse.victim import AUTH, COFFEE, KEY, MIB, UPLOAD_SECONDS, check_problem, peak_growth
from tests.end_to_end.gateway import Gateway
from tests.end_to_end.raw_http import connect, drain, flood, head, send


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
