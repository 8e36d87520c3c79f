"""/metrics on the HTTP port, or on one of its own and on no other."""

import asyncio
import socket
from pathlib import Path

import httpx
import pytest

from tests.http_service import fake_service, metric
from tests.ports import free_port


async def test_a_port_of_its_own_has_metrics_and_the_other_none(tmp_path: Path) -> None:
    port = free_port()
    async with fake_service(tmp_path, metrics_port=port) as service:
        assert (await service.http.get("/healthz")).status_code == 200
        assert (await service.http.get("/metrics")).status_code == 404
        answer = await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{port}/metrics")
        assert metric(answer.text, "ovsam_requests_total", route="/healthz", code="ok") == 1
    with pytest.raises(httpx.ConnectError):
        await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{port}/metrics")


async def test_a_port_that_is_taken_stops_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        async with fake_service(tmp_path, metrics_port=taken.getsockname()[1]):
            pass


async def test_what_alerts_ask_for_begins_at_nought(tmp_path: Path) -> None:
    """Prometheus sees no increase in a series that begins with its first event."""
    async with fake_service(tmp_path) as service:
        await service.http.get("/healthz")
        text = (await service.http.get("/metrics")).text
    for kind in ("unavailable", "timeout", "lease", "corrupt", "oversized"):
        assert f'ovsam_cache_faults_total{{kind="{kind}"}} 0.0' in text
    for code in ("internal", "backend-unavailable", "overloaded", "deadline"):
        assert f'ovsam_requests_total{{code="{code}",route="/healthz"}} 0.0' in text
    assert 'ovsam_queue_dropped_total{queue="prompt_decoder",reason="overloaded"} 0.0' in text
    assert "_created" not in text
