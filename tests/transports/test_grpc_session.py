"""SegmentStream: masks before names, the newest request wins, a failure leaves the session open."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from service.transports import ovsam_pb2 as pb
from tests.grpc_service import BothTransports, both_transports
from tests.http_service import picture

Session = grpc.aio.StreamStreamCall[pb.SegmentRequest, pb.SegmentReply]
RED = pb.Prompt(id="r", points=[pb.Point(x=12, y=12)])
GREEN = pb.Prompt(id="g", points=[pb.Point(x=45, y=20)])
OUTSIDE = pb.Prompt(id="o", points=[pb.Point(x=900, y=12)])


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[BothTransports]:
    async with both_transports(tmp_path) as running:
        yield running


def first(*prompts: pb.Prompt, sequence: int = 1) -> pb.SegmentRequest:
    return pb.SegmentRequest(image=pb.Image(content=picture()), prompts=prompts, sequence=sequence)


async def read(session: Session) -> pb.SegmentReply:
    reply = await session.read()
    assert isinstance(reply, pb.SegmentReply)
    return reply


async def test_masks_come_first_and_the_same_masks_with_names_after(both: BothTransports) -> None:
    session = both.stub.SegmentStream()
    await session.write(first(RED, OUTSIDE))
    masks, named = await read(session), await read(session)
    assert (masks.stage, named.stage) == (pb.STAGE_MASKS, pb.STAGE_COMPLETE)
    assert masks.sequence == named.sequence == 1
    assert not masks.results[0].classes
    assert named.results[0].classes[0].name == "red"
    assert masks.results[0].mask == named.results[0].mask
    assert masks.results[0].mask_ref == named.results[0].mask_ref != ""
    assert [reply.results[1].error.code for reply in (masks, named)] == ["invalid-prompt"] * 2
    await session.done_writing()


async def test_the_named_reply_equals_the_answer_to_a_single_call(both: BothTransports) -> None:
    request = first(RED, GREEN)
    replies = [reply async for reply in both.stub.SegmentStream(iter([request]))]
    single = await both.stub.Segment(request)
    for result in (*replies[-1].results, *single.results):
        result.ClearField("mask_ref")
    assert list(replies[-1].results) == list(single.results)


async def test_later_requests_need_not_name_the_image_again(both: BothTransports) -> None:
    session = both.stub.SegmentStream()
    await session.write(first(RED))
    digest = (await read(session)).digest
    await read(session)
    await session.write(pb.SegmentRequest(prompts=[GREEN], sequence=2, masks_only=True))
    reply = await read(session)
    assert (reply.digest, reply.stage, reply.sequence) == (digest, pb.STAGE_COMPLETE, 2)
    assert both.backend.calls["image_encoder"] == 1
    session.cancel()


async def test_a_newer_request_ends_the_work_on_an_older_one(both: BothTransports) -> None:
    await both.stub.PutImage(iter([pb.ImageChunk(content=picture())]))
    both.backend.seconds = 0.5
    requests = [first(RED, sequence=number) for number in (1, 2, 3)]
    replies = [reply async for reply in both.stub.SegmentStream(iter(requests))]
    assert [reply.sequence for reply in replies] == [3, 3]
    assert both.backend.calls["region_encoder"] == 1


async def test_a_newer_request_does_not_lose_the_image_that_is_being_encoded(both: BothTransports) -> None:
    both.backend.seconds = 0.5
    requests = [first(RED), pb.SegmentRequest(prompts=[GREEN], sequence=2)]
    replies = [reply async for reply in both.stub.SegmentStream(iter(requests))]
    assert [reply.results[0].id for reply in replies] == ["g", "g"]


async def test_a_request_that_comes_late_is_passed_over(both: BothTransports) -> None:
    session = both.stub.SegmentStream()
    await session.write(first(RED, sequence=5))
    await read(session)
    await read(session)
    await session.write(first(GREEN, sequence=4))
    await session.write(first(GREEN, sequence=6))
    assert (await read(session)).sequence == 6
    session.cancel()


async def test_a_request_that_fails_leaves_the_session_open(both: BothTransports) -> None:
    session = both.stub.SegmentStream()
    await session.write(pb.SegmentRequest(prompts=[RED]))
    assert (await read(session)).error.code == "malformed"
    await session.write(first(OUTSIDE))
    refused = await read(session)
    assert (refused.error.code, refused.error.pointer) == ("invalid-prompt", "/prompts/0/points/0")
    await session.write(first(RED))
    assert (await read(session)).stage == pb.STAGE_MASKS
    session.cancel()
