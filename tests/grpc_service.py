"""The real gRPC server over the fake network, on a free port."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from service.transports import ovsam_pb2_grpc
from service.transports.grpc_server import serve_grpc
from tests.fakes import FakeBackend
from tests.http_service import FakeService, fake_service


@dataclass
class BothTransports:
    """One set of services asked over HTTP and over gRPC."""

    rest: FakeService
    channel: grpc.aio.Channel
    stub: "ovsam_pb2_grpc.SegmentationAsyncStub"
    port: int

    @property
    def backend(self) -> FakeBackend:
        return self.rest.backend


@asynccontextmanager
async def both_transports(
    tmp_path: Path, *, backend: FakeBackend | None = None, **settings: Any
) -> AsyncIterator[BothTransports]:
    """The app and the gRPC server over the same services."""
    async with (
        fake_service(tmp_path, backend=backend, **settings) as rest,
        serve_grpc(rest.services, address="127.0.0.1:0") as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield BothTransports(rest, channel, ovsam_pb2_grpc.SegmentationStub(channel), port)
