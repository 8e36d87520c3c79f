"""One gateway for all abuse, and a site that it may fetch from; after each test the gateway has to be in order."""

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import httpx
import pytest

from service.adapters.keys import line_of
from tests.end_to_end.abuse.victim import COFFEE, KEY, MIB, UPLOAD_SECONDS, Site
from tests.end_to_end.gateway import Gateway, running_gateway


@pytest.fixture(scope="package")
def site() -> Iterator[int]:
    """A listed server that redirects; its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture(scope="package")
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
