"""One trace from the caller through the gateway into a real Triton, which sends spans of its own."""

import json
import time
from pathlib import Path
from typing import Any

import httpx
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.end_to_end.gateway import ROOT, SAMPLES, running_gateway
from tests.end_to_end.triton_server import QUICK_PROBES, running_triton
from tests.otlp_receiver import Receiver, otlp_receiver

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
ATTEMPTS, PATIENCE = 6, 15.0
PROMPT = '{"prompts":[{"points":[{"x":340,"y":200}]}],"classify":null}'


def ours(receiver: Receiver) -> list[Span]:
    """The spans of the one trace."""
    return [span for span in receiver.spans if span.trace_id.hex() == TRACE]


def inside_triton(receiver: Receiver) -> list[Span]:
    return [span for span in ours(receiver) if span.name == "InferRequest"]


def complete(receiver: Receiver) -> bool:
    """Whether the gateway's span and one of each of Triton's models have come."""
    above = {span.span_id: span.name for span in ours(receiver)}
    seen = {above.get(span.parent_span_id) for span in inside_triton(receiver)}
    return {"ModelInfer image_encoder", "ModelInfer prompt_decoder"} <= seen and "/v1/segment" in above.values()


def await_spans(receiver: Receiver, http: httpx.Client) -> None:
    """Click on new pictures, under one trace, until all spans have come: seldom one of Triton's does not."""
    for number in range(1, ATTEMPTS + 1):
        picture = (SAMPLES / "coffee.jpg").read_bytes() + bytes([number])
        parts: dict[str, Any] = {"image": picture, "request": (None, PROMPT)}
        answer = http.post("/v1/segment", files=parts, headers=HEADERS | {"x-request-id": f"r-{number}"})
        assert answer.status_code == 200, answer.text
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if complete(receiver):
                return
            time.sleep(0.2)
    raise AssertionError(sorted({span.name for span in ours(receiver)}))


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
            with gateway.client() as http:
                await_spans(receiver, http)
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
