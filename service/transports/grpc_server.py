"""The gRPC server: the service, its health and its reflection on one port, under limits and with keepalive."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from service.transports import ovsam_pb2_grpc
from service.transports.grpc_access import KeyInterceptor
from service.transports.grpc_api import DESCRIPTOR, SERVICE, Segmentation
from service.transports.grpc_health import Health
from service.transports.services import Services

_HEALTH: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_REFLECTION = "grpc.reflection.v1.ServerReflection"
_BESIDE_IMAGE = 4 * 2**20  # bytes of a message besides its image: prompts and names at their limits


@asynccontextmanager
async def serve_grpc(
    services: Services, *, address: str, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[int]:
    """Serve on `address` (host:port; port 0 takes a free one) and give the port.

    At the end no call is taken any more, and those in hand have `request_seconds` to finish.
    """
    segmentation = Segmentation(services)
    health = Health(services.check_ready, names=(SERVICE,))
    server = build_grpc_server(
        segmentation,
        health,
        interceptor=KeyInterceptor(services.gate, services.observer, service=DESCRIPTOR),
        max_image_bytes=services.embedder.limits.body_bytes,
    )
    port = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    await server.start()
    try:
        yield port
    finally:
        health.drain()
        segmentation.drain()
        await server.stop(grace=services.request_seconds)


def build_grpc_server(
    segmentation: Segmentation, health: Health, *, interceptor: grpc.aio.ServerInterceptor, max_image_bytes: int
) -> grpc.aio.Server:
    """A server without a port yet."""
    server = grpc.aio.server(
        interceptors=[interceptor],
        options=[
            ("grpc.max_receive_message_length", max_image_bytes + _BESIDE_IMAGE),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # a taken port is an error, not a silent half of the traffic
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ],
    )
    ovsam_pb2_grpc.add_SegmentationServicer_to_server(segmentation, server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    _add_reflection(server)
    return server


def _add_reflection(server: grpc.aio.Server) -> None:
    """Reflection under its old name and under its new one, whose messages are the same on the wire."""
    names = (SERVICE, _HEALTH, _REFLECTION, reflection.SERVICE_NAME)
    servicer = reflection.aio.ReflectionServicer(names)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    generic = grpc.method_handlers_generic_handler(_REFLECTION, {"ServerReflectionInfo": handler})
    server.add_generic_rpc_handlers((generic,))
