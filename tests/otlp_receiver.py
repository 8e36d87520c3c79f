"""Takes spans over OTLP, by gRPC as the gateway sends them and by HTTP as Triton does."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as pb_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_IDS = ("traceId", "spanId", "parentSpanId")


@dataclass
class Receiver:
    """What came so far."""

    grpc_url: str = ""
    http_url: str = ""
    spans: list[Span] = field(default_factory=list)

    def take(self, request: pb.ExportTraceServiceRequest) -> None:
        self.spans += [span for part in request.resource_spans for scope in part.scope_spans for span in scope.spans]

    def take_json(self, body: bytes) -> None:
        """OTLP's JSON, in which ids are hexadecimal and not base64 as protobuf would have them."""
        for part in json.loads(body)["resourceSpans"]:
            for span in (span for scope in part["scopeSpans"] for span in scope["spans"]):
                trace, own, parent = (bytes.fromhex(span.get(key, "")) for key in _IDS)
                self.spans.append(Span(name=span["name"], trace_id=trace, span_id=own, parent_span_id=parent))

    def named(self, name: str) -> Span:
        (found,) = [span for span in self.spans if span.name == name]
        return found


class _Service(pb_grpc.TraceServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def Export(self, request: pb.ExportTraceServiceRequest, context: Any) -> pb.ExportTraceServiceResponse:  # noqa: N802
        self._receiver.take(request)
        return pb.ExportTraceServiceResponse()


@contextmanager
def otlp_receiver() -> Iterator[Receiver]:
    """Both servers on free ports."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.take_json(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = grpc.server(ThreadPoolExecutor(2))
    pb_grpc.add_TraceServiceServicer_to_server(_Service(receiver), server)  # type: ignore[no-untyped-call]  # generated
    receiver.grpc_url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.http_url = f"http://127.0.0.1:{web.server_address[1]}/v1/traces"
    threading.Thread(target=web.serve_forever, daemon=True).start()
    try:
        yield receiver
    finally:
        web.shutdown()
        web.server_close()
        server.stop(None).wait()
