"""Spans of requests and stages, sent to a real OTLP receiver; and nothing at all where they are not wanted."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from service.core.errors import BackendUnavailable
from service.tracing import TracingMissing, open_tracing
from service.transports import ovsam_pb2 as pb
from tests.end_to_end.gateway import ROOT
from tests.fakes import FakeBackend
from tests.grpc_service import both_transports
from tests.http_service import fake_service, picture
from tests.otlp_receiver import otlp_receiver

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
PARTS: dict[str, Any] = {"image": picture(), "request": (None, b'{"prompts":[{"points":[{"x":12,"y":12}]}]}')}


def attributes(span: Span) -> dict[str, str]:
    return {item.key: item.value.string_value for item in span.attributes}


async def test_a_request_is_a_span_under_the_callers_with_a_span_for_each_stage(tmp_path: Path) -> None:
    with otlp_receiver() as receiver:
        async with fake_service(tmp_path, traces_url=receiver.grpc_url) as service:
            headers = TRACEPARENT | {"x-request-id": "r-1"}
            assert (await service.http.post("/v1/segment", files=PARTS, headers=headers)).status_code == 200
    request = receiver.named("/v1/segment")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    assert request.kind == Span.SPAN_KIND_SERVER
    told = attributes(request)
    assert (told["ovsam.request_id"], told["ovsam.code"], told["ovsam.tenant"]) == ("r-1", "ok", "public")
    stages = [span for span in receiver.spans if span.parent_span_id == request.span_id]
    assert {span.name for span in stages} == {"label", "fetch", "encode", "decode", "render"}
    assert all(span.trace_id == request.trace_id for span in stages)


async def test_a_failure_of_ours_is_marked_and_a_callers_is_not(tmp_path: Path) -> None:
    backend = FakeBackend()
    with otlp_receiver() as receiver:
        async with fake_service(tmp_path, backend=backend, traces_url=receiver.grpc_url) as service:
            assert (await service.http.post("/v1/segment", json={})).status_code == 400
            backend.failure = BackendUnavailable("it is gone")
            assert (await service.http.post("/v1/images", content=picture())).status_code == 503
    assert receiver.named("/v1/segment").status.code == Status.STATUS_CODE_UNSET
    assert receiver.named("/v1/images").status.code == Status.STATUS_CODE_ERROR


async def test_grpc_calls_take_part_too(tmp_path: Path) -> None:
    with otlp_receiver() as receiver:
        async with both_transports(tmp_path, traces_url=receiver.grpc_url) as both:
            chunks = iter([pb.ImageChunk(content=picture())])
            await both.stub.PutImage(chunks, metadata=tuple(TRACEPARENT.items()))
    assert receiver.named("/ovsam.v1.Segmentation/PutImage").trace_id.hex() == TRACE


async def test_a_session_has_a_span_for_each_request_also_for_one_that_was_overtaken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prompt = pb.Prompt(points=[pb.Point(x=12, y=12)])
    with otlp_receiver() as receiver:
        async with both_transports(tmp_path, traces_url=receiver.grpc_url) as both:
            image = pb.Image(content=picture())
            both.backend.seconds = 0.2
            requests = [pb.SegmentRequest(image=image, prompts=[prompt], sequence=number) for number in (1, 2)]
            session = both.stub.SegmentStream()
            for request in requests:
                await session.write(request)
                await asyncio.sleep(0.1)
            await session.done_writing()
            assert [reply.sequence async for reply in session] == [2, 2]
    spans = [span for span in receiver.spans if span.name == "/ovsam.v1.Segmentation/SegmentStream"]
    assert [attributes(span)["ovsam.code"] for span in spans] == ["departed", "ok"]
    assert not [line for line in caplog.records if line.levelname == "ERROR"]


async def test_a_receiver_that_is_not_there_costs_no_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    async with fake_service(tmp_path, traces_url="http://127.0.0.1:9") as service:
        assert (await service.http.post("/v1/segment", files=PARTS, headers=TRACEPARENT)).status_code == 200


def test_without_an_address_nothing_is_imported() -> None:
    code = "import sys, service.app; from service.settings import Settings; service.app.build_app(Settings());"
    code += "print([name for name in sys.modules if name.startswith('opentelemetry.exporter')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"  # (redis-py imports the SDK itself, where there is one)


def test_an_address_without_the_extra_stops_the_start_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    monkeypatch.delitem(sys.modules, "service.tracing_otlp", raising=False)
    with pytest.raises(TracingMissing, match="OVSAM_TRACES_URL needs the extra `tracing`"):
        open_tracing("http://127.0.0.1:4317")
