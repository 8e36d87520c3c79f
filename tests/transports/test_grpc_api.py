"""What gRPC has beyond REST: uploads in chunks, deadlines, departures, health, reflection, limits and TLS."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from service.core.errors import BackendUnavailable
from service.transports import ovsam_pb2 as pb
from service.transports import ovsam_pb2_grpc
from service.transports.grpc_api import SERVICE
from service.transports.grpc_server import serve_grpc
from tests.fakes import FakeBackend
from tests.grpc_service import BothTransports, both_transports
from tests.http_service import picture

CLICK = pb.Prompt(id="r", points=[pb.Point(x=12, y=12)])
HEALTH = health_pb2.HealthCheckResponse


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[BothTransports]:
    async with both_transports(tmp_path, max_body_mib=1) as running:
        yield running


async def settled(condition: Callable[[], bool]) -> None:
    """Give the server a moment to take note of a departure."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


async def test_an_upload_over_the_limit_is_refused_with_its_code(both: BothTransports) -> None:
    chunks = [pb.ImageChunk(content=bytes(2**18))] * 6
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await both.stub.PutImage(iter(chunks))
    assert dict(failure.value.trailing_metadata() or ())["ovsam-code"] == "too-large"


async def test_an_upload_without_end_is_cut_off(both: BothTransports) -> None:
    sent = 0

    async def endless() -> AsyncIterator[pb.ImageChunk]:
        nonlocal sent
        while True:
            sent += 1
            yield pb.ImageChunk(content=bytes(2**18))

    with pytest.raises(grpc.aio.AioRpcError):
        await both.stub.PutImage(endless())
    assert sent < 50
    counted = {"route": f"/{SERVICE}/PutImage", "code": "too-large"}
    await settled(lambda: both.rest.metric("ovsam_requests_total", **counted) == 1)


async def test_an_upload_without_bytes_is_no_image(both: BothTransports) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await both.stub.PutImage(iter([]))
    assert dict(failure.value.trailing_metadata() or ())["ovsam-code"] == "not-an-image"


async def test_a_message_far_over_the_limit_never_reaches_the_service(both: BothTransports) -> None:
    request = pb.SegmentRequest(image=pb.Image(content=bytes(6 * 2**20)), prompts=[CLICK])
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await both.stub.Segment(request)
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_the_callers_deadline_ends_the_work_in_the_backend(both: BothTransports) -> None:
    digest = (await both.stub.PutImage(iter([pb.ImageChunk(content=picture())]))).digest
    both.backend.seconds = 60.0
    request = pb.SegmentRequest(image=pb.Image(digest=digest), prompts=[CLICK], masks_only=True)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await both.stub.Segment(request, timeout=1.0)
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await settled(lambda: both.backend.cancelled == 1)


async def test_the_services_own_limit_holds_for_callers_without_a_deadline(tmp_path: Path) -> None:
    async with both_transports(tmp_path, backend=FakeBackend(seconds=60.0), request_seconds=0.2) as both:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await both.stub.Segment(
                pb.SegmentRequest(image=pb.Image(content=picture()), prompts=[CLICK], masks_only=True)
            )
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert dict(failure.value.trailing_metadata() or ())["ovsam-code"] == "deadline"


async def test_a_caller_that_leaves_ends_the_work_in_the_backend(both: BothTransports) -> None:
    both.backend.seconds = 60.0
    call = both.stub.Segment(pb.SegmentRequest(image=pb.Image(content=picture()), prompts=[CLICK]))
    await settled(lambda: both.backend.calls["image_encoder"] == 1)
    call.cancel()
    await settled(lambda: both.backend.cancelled == 1)
    counted = {"route": f"/{SERVICE}/Segment", "code": "departed"}
    await settled(lambda: both.rest.metric("ovsam_requests_total", **counted) == 1)


async def test_prewarming_answers_at_once_and_spares_the_first_click_its_encode(both: BothTransports) -> None:
    answer = await both.stub.Prewarm(pb.PrewarmRequest(image=pb.Image(content=picture())))
    assert answer.state == pb.EMBEDDING_STATE_PENDING
    again = await both.stub.Prewarm(pb.PrewarmRequest(image=pb.Image(digest=answer.digest)))
    assert again.state == pb.EMBEDDING_STATE_READY
    reply = await both.stub.Segment(pb.SegmentRequest(image=pb.Image(digest=answer.digest), prompts=[CLICK]))
    assert reply.cache == "memory"
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await both.stub.Prewarm(pb.PrewarmRequest(image=pb.Image(digest="sha256:" + "0" * 64)))
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_follows_readiness(both: BothTransports) -> None:
    health = health_pb2_grpc.HealthStub(both.channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
    assert (await watch.read()).status == HEALTH.SERVING
    both.backend.failure = BackendUnavailable("the engine is down")
    assert (await watch.read()).status == HEALTH.NOT_SERVING
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == HEALTH.NOT_SERVING
    both.backend.failure = None
    assert (await watch.read()).status == HEALTH.SERVING
    both.rest.services.draining.set()
    assert (await watch.read()).status == HEALTH.NOT_SERVING
    watch.cancel()
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await health.Check(health_pb2.HealthCheckRequest(service="another"))
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_server_that_stops_says_so_and_lets_go_of_watches_and_sessions(both: BothTransports) -> None:
    async with serve_grpc(both.rest.services, address="127.0.0.1:0") as port:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == HEALTH.SERVING
        session = ovsam_pb2_grpc.SegmentationStub(channel).SegmentStream()
        await session.write(pb.SegmentRequest(image=pb.Image(content=picture()), prompts=[CLICK], masks_only=True))
        reply = await session.read()
        assert isinstance(reply, pb.SegmentReply)
        assert reply.stage == pb.STAGE_COMPLETE
        started = time.monotonic()
    assert time.monotonic() - started < 15.0
    assert (await watch.read()).status == HEALTH.NOT_SERVING
    assert await session.read() is grpc.aio.EOF
    await channel.close()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_tells_the_services_and_their_file(both: BothTransports, version: str) -> None:
    ask = both.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    listed, described = [answer async for answer in ask(iter(requests))]
    names = {service.name for service in listed.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names
    assert described.file_descriptor_response.file_descriptor_proto == [pb.DESCRIPTOR.serialized_pb]


async def test_two_servers_cannot_share_a_port_unawares(both: BothTransports) -> None:
    with pytest.raises(RuntimeError):
        async with serve_grpc(both.rest.services, address=f"127.0.0.1:{both.port}"):
            pass


async def test_tls_where_the_operator_gives_a_certificate(both: BothTransports, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    ask = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    ask += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(ask, check=True, capture_output=True)  # noqa: ASYNC221 - nothing else runs meanwhile
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    trusted = grpc.ssl_channel_credentials(certificate.read_bytes())
    async with (
        serve_grpc(both.rest.services, address="localhost:0", credentials=credentials) as port,
        grpc.aio.secure_channel(f"localhost:{port}", trusted) as channel,
    ):
        listed = await ovsam_pb2_grpc.SegmentationStub(channel).ListVocabularies(pb.ListVocabulariesRequest())
    assert listed.default_vocabulary == "common"


async def test_five_seconds_of_load_pass_without_an_error(both: BothTransports) -> None:
    image = pb.Image(digest=(await both.stub.PutImage(iter([pb.ImageChunk(content=picture())]))).digest)
    until = time.monotonic() + 5.0

    async def click() -> int:
        count = 0
        while time.monotonic() < until:
            reply = await both.stub.Segment(pb.SegmentRequest(image=image, prompts=[CLICK]))
            assert reply.results[0].classes[0].name == "red"
            count += 1
        return count

    counts = await asyncio.gather(*(click() for _ in range(8)))
    assert min(counts) > 0
    assert both.backend.calls["image_encoder"] == 1
