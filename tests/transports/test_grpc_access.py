"""API keys before gRPC: who comes in, as which tenant, and what is told of those who do not."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from service.adapters.keys import line_of, new_key
from service.transports import ovsam_pb2 as pb
from service.transports.grpc_api import DESCRIPTOR, SERVICE
from tests.grpc_service import BothTransports, both_transports
from tests.http_service import picture

ACME, ZOO, SLOW = new_key(), new_key(), new_key()


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[BothTransports]:
    keys = tmp_path / "keys"
    lines = [line_of(ACME, tenant="acme"), line_of(ZOO, tenant="zoo"), line_of(SLOW, tenant="zoo", rate=0.01, burst=3)]
    keys.write_text("\n".join(lines))
    async with both_transports(tmp_path, api_keys_file=keys) as running:
        yield running


def grpc_call(both: BothTransports, call: str, *metadata: tuple[str, str]) -> "grpc.aio.Call":
    chunks, requests = [pb.ImageChunk(content=picture())], [pb.SegmentRequest(image=pb.Image(content=picture()))]
    started: dict[str, grpc.aio.Call] = {
        "PutImage": both.stub.PutImage(iter(chunks), metadata=metadata),
        "Segment": both.stub.Segment(requests[0], metadata=metadata),
        "SegmentStream": both.stub.SegmentStream(iter(requests), metadata=metadata),
        "Prewarm": both.stub.Prewarm(pb.PrewarmRequest(image=requests[0].image), metadata=metadata),
        "ListVocabularies": both.stub.ListVocabularies(pb.ListVocabulariesRequest(), metadata=metadata),
    }
    for name, other in started.items():
        if name != call:
            other.cancel()
    return started[call]


@pytest.mark.parametrize("call", [method.name for method in DESCRIPTOR.methods])
@pytest.mark.parametrize("metadata", [(), (("authorization", f"Bearer {ACME[:-1]}"),), (("x-api-key", "wrong"),)])
async def test_every_grpc_call_asks_for_a_key(
    both: BothTransports, call: str, metadata: tuple[tuple[str, str], ...]
) -> None:
    started = grpc_call(both, call, *metadata)
    assert await started.code() is grpc.StatusCode.UNAUTHENTICATED
    assert dict(await started.trailing_metadata())["ovsam-code"] == "unauthorized"
    assert ACME[:-1] not in str(await started.details())
    assert not both.backend.calls


def refusals(both: BothTransports, *, route: str, code: str) -> float:
    return both.rest.metric("ovsam_requests_total", route=route, code=code)


async def test_a_call_refused_over_grpc_is_counted_and_logged_as_one_over_http_is(
    both: BothTransports, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "service.requests")
    wrong = (("x-api-key", "wrong"), ("x-request-id", "refused-1"))
    failed = both.stub.Segment(pb.SegmentRequest(), metadata=wrong)
    assert await failed.code() is grpc.StatusCode.UNAUTHENTICATED
    assert dict(await failed.trailing_metadata())["x-request-id"] == "refused-1"
    unknown = both.channel.unary_unary(f"/{SERVICE}/Made-up", bytes, bytes)
    with pytest.raises(grpc.aio.AioRpcError):
        await unknown(b"", metadata=wrong)
    await both.rest.http.get("/v1/models", headers={"x-api-key": "wrong"})
    assert refusals(both, route=f"/{SERVICE}/Segment", code="unauthorized") == 1
    assert refusals(both, route="other", code="unauthorized") == 2
    (line,) = [record for record in caplog.records if f"/{SERVICE}/Segment" in record.getMessage()]
    assert line.getMessage() == f"/{SERVICE}/Segment UNAUTHENTICATED unauthorized"
    assert line.__dict__["request_id"] == "refused-1"
    assert "wrong" not in caplog.text


async def test_a_call_beyond_its_rate_is_counted_and_logged_over_grpc_too(
    both: BothTransports, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "service.requests")
    for _ in range(5):
        await both.stub.ListVocabularies(pb.ListVocabulariesRequest(), metadata=(("x-api-key", SLOW),)).code()
    assert refusals(both, route=f"/{SERVICE}/ListVocabularies", code="rate-limited") == 2
    assert caplog.text.count(f"/{SERVICE}/ListVocabularies RESOURCE_EXHAUSTED rate-limited") == 2


@pytest.mark.parametrize("header", [("authorization", f"Bearer {ACME}"), ("x-api-key", ACME)])
async def test_a_key_in_the_metadata_comes_in_as_its_tenant(both: BothTransports, header: tuple[str, str]) -> None:
    put = await both.stub.PutImage(iter([pb.ImageChunk(content=picture())]), metadata=(header,))
    heads = [await both.rest.http.head(f"/v1/images/{put.digest}", headers={"x-api-key": key}) for key in (ACME, ZOO)]
    assert [answer.status_code for answer in heads] == [200, 404]
    request = pb.SegmentRequest(image=pb.Image(digest=put.digest), masks_only=True)
    request.prompts.add().points.add(x=12, y=12, label=pb.POINT_LABEL_FOREGROUND)
    assert (await both.stub.Segment(request, metadata=(header,))).results[0].area > 0
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await both.stub.Segment(request, metadata=(("x-api-key", ZOO),))
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND


async def test_each_request_of_a_grpc_session_counts_against_the_rate(both: BothTransports) -> None:
    requests = []
    for sequence in range(1, 6):
        request = pb.SegmentRequest(image=pb.Image(content=picture()), masks_only=True, sequence=sequence)
        request.prompts.add().points.add(x=12, y=12, label=pb.POINT_LABEL_FOREGROUND)
        requests.append(request)
    stream = both.stub.SegmentStream(metadata=(("x-api-key", SLOW),))
    codes = []
    for request in requests:
        await stream.write(request)
        reply = await stream.read()
        assert isinstance(reply, pb.SegmentReply)
        codes.append(reply.error.code if reply.HasField("error") else "ok")
    await stream.done_writing()
    assert codes == ["ok", "ok", "ok", "rate-limited", "rate-limited"]
