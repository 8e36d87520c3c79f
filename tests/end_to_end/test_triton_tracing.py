"""One trace from the caller through the gateway into a real Triton, which sends spans of its own."""

import json
import time
from pathlib import Path
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.end_to_end.gateway import ROOT, SAMPLES, running_gateway
from tests.end_to_end.triton_server import QUICK_PROBES, running_triton
from tests.otlp_receiver import Receiver, otlp_receiver

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "x-request-id": "r-1"}
PROMPT = '{"prompts":[{"points":[{"x":340,"y":200}]}],"classify":null}'


def ours(receiver: Receiver) -> list[Span]:
    """The spans of the one trace."""
    return [span for span in receiver.spans if span.trace_id.hex() == TRACE]


def inside_triton(receiver: Receiver) -> list[Span]:
    return [span for span in ours(receiver) if span.name == "InferRequest"]


def test_a_click_is_followed_into_triton(tmp_path: Path) -> None:
    with otlp_receiver() as receiver:
        settings = ["mode=opentelemetry", f"opentelemetry,url={receiver.http_url}", "rate=1", "level=TIMESTAMPS"]
        flags = [*QUICK_PROBES, "--", *(f"--trace-config={setting}" for setting in settings)]
        with (
            running_triton(ROOT / "model_repository", tmp_path, flags) as triton,
            running_gateway(
                tmp_path / "gateway", triton_url=triton.url, traces_url=receiver.grpc_url, log_format="json"
            ) as gateway,
        ):
            parts: dict[str, Any] = {"image": (SAMPLES / "coffee.jpg").read_bytes(), "request": (None, PROMPT)}
            with gateway.client() as http:
                answer = http.post("/v1/segment", files=parts, headers=HEADERS)
            assert answer.status_code == 200, gateway.log.read_text()
            end = time.monotonic() + 60
            while len(inside_triton(receiver)) < 2 or "/v1/segment" not in {span.name for span in ours(receiver)}:
                assert time.monotonic() < end, sorted({span.name for span in receiver.spans})
                time.sleep(0.2)
            lines = [json.loads(line) for line in gateway.log.read_text().splitlines()]
    by_id = {span.span_id: span for span in ours(receiver)}
    above = {span.name: by_id[span.parent_span_id].name for span in ours(receiver) if span.parent_span_id in by_id}
    assert above["ModelInfer prompt_decoder"] == "decode"
    assert above["decode"] == "/v1/segment"
    assert {by_id[span.parent_span_id].name for span in inside_triton(receiver)} == {
        "ModelInfer image_encoder",
        "ModelInfer prompt_decoder",
    }
    (line,) = [line for line in lines if line.get("request_id") == "r-1"]
    assert line["trace_id"] == TRACE
