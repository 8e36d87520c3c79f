"""gRPC: each call parses, asks the core and renders, like the REST interface; no decision is taken here."""
# ruff: noqa: N802 - the names of calls are the proto's

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from service.core.errors import ImageTooLarge, InvalidImage, ServiceError, SlowUpload, TemporaryError, UnknownImage
from service.core.images import digest_of
from service.transports import ovsam_pb2 as pb
from service.transports import ovsam_pb2_grpc as pb_grpc
from service.transports.grpc_access import headers_of
from service.transports.grpc_messages import core_request, reply_message
from service.transports.grpc_session import OpenImage, Session
from service.transports.request_ids import request_id
from service.transports.services import Services
from service.transports.status import status_of

DESCRIPTOR = pb.DESCRIPTOR.services_by_name["Segmentation"]
SERVICE = DESCRIPTOR.full_name
Context = grpc.aio.ServicerContext[Any, Any]
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Call:
    """One request under way: its id, when it must be answered (by `time.monotonic`), whose it is, and how it ended."""

    request_id: str
    deadline: float
    tenant: str = ""  # until the gate has let it in
    code: str = "departed"
    status: grpc.StatusCode = grpc.StatusCode.CANCELLED


@dataclass(frozen=True, slots=True)
class Failure:
    """What a caller is told of a failed request; `retry_after` is in seconds."""

    status: grpc.StatusCode
    error: pb.Error
    retry_after: float | None = None


class Segmentation(pb_grpc.SegmentationServicer):
    """The service of `ovsam.proto` over ready use cases."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._sessions: set[Session] = set()

    def drain(self) -> None:
        """End the sessions, each after its work in hand."""
        for session in self._sessions:
            session.end()

    async def PutImage(self, request_iterator: AsyncIterator[pb.ImageChunk], context: Context) -> pb.PutImageResponse:
        """Embed an image that comes in chunks."""
        async with self._call("PutImage", context) as call:
            content = await self._received(request_iterator)
            key = self._services.embedder.key(call.tenant, await asyncio.to_thread(digest_of, content))
            embedding = await self._services.segmenter.embed(key, content, deadline=call.deadline)
            size = embedding.letterbox.original
            return pb.PutImageResponse(digest=key.digest, width=size.width, height=size.height)

    async def Segment(self, request: pb.SegmentRequest, context: Context) -> pb.SegmentReply:
        """Masks and names."""
        async with self._call("Segment", context) as call:
            image = await OpenImage(request.image).named()
            wanted = core_request(request, image, tenant=call.tenant)
            reply = await self._services.segmenter.segment(wanted, deadline=call.deadline)
            return reply_message(reply, spec=self._services.backend.spec, request_id=call.request_id)

    async def SegmentStream(
        self, request_iterator: AsyncIterator[pb.SegmentRequest], context: Context
    ) -> AsyncIterator[pb.SegmentReply]:
        """Masks first, names after; the newest request wins."""
        image: OpenImage | None = None

        def work(request: pb.SegmentRequest) -> AsyncGenerator[pb.SegmentReply, None]:
            nonlocal image
            if image is None or request.HasField("image"):
                image = OpenImage(request.image)
            return self._stages(request, image, context)

        session = Session(work)
        self._sessions.add(session)
        try:
            async for reply in session.replies(request_iterator):
                yield reply
        finally:
            self._sessions.discard(session)

    async def Prewarm(self, request: pb.PrewarmRequest, context: Context) -> pb.PrewarmResponse:
        """Embed in the background."""
        async with self._call("Prewarm", context) as call:
            digest, content = await OpenImage(request.image).named()
            key = self._services.embedder.key(call.tenant, digest)
            if content is not None:
                self._services.embedder.prewarm(key, content)
                return pb.PrewarmResponse(digest=digest, state=pb.EMBEDDING_STATE_PENDING)
            if await self._services.embedder.find(key) is None:
                raise UnknownImage(f"no embedding is kept for {digest}")
            return pb.PrewarmResponse(digest=digest, state=pb.EMBEDDING_STATE_READY)

    async def ListVocabularies(
        self, request: pb.ListVocabulariesRequest, context: Context
    ) -> pb.ListVocabulariesResponse:
        """The vocabularies that a request may name."""
        del request
        async with self._call("ListVocabularies", context) as call:
            vocabularies = self._services.vocabularies
            names = await vocabularies.names(call.tenant)
            return pb.ListVocabulariesResponse(default_vocabulary=vocabularies.default, vocabularies=names)

    async def _stages(
        self, request: pb.SegmentRequest, image: OpenImage, context: Context
    ) -> AsyncGenerator[pb.SegmentReply, None]:
        """The replies to one request of a session; a failure is a reply too."""
        call = self._begin(context)
        spec = self._services.backend.spec
        with self._counted("SegmentStream", call, context):
            try:
                call.tenant = await self._admit(context)
                wanted = core_request(request, await image.named(), tenant=call.tenant)
                stage = pb.STAGE_MASKS if wanted.classify else pb.STAGE_COMPLETE
                async for reply in self._services.segmenter.segment_in_stages(wanted, deadline=call.deadline):
                    image.embedded()
                    message = reply_message(reply, spec=spec, request_id=call.request_id)
                    message.stage, stage = stage, pb.STAGE_COMPLETE
                    yield message
                call.code, call.status = "ok", grpc.StatusCode.OK
            except Exception as error:  # noqa: BLE001 - the transport's edge: the session outlives a failure
                failure = _fail(call, error)
                yield pb.SegmentReply(request_id=call.request_id, stage=pb.STAGE_COMPLETE, error=failure.error)

    async def _received(self, chunks: AsyncIterator[pb.ImageChunk]) -> bytes:
        """The whole image; of one too large a little more is read, since some clients see no status while they send."""
        limit = self._services.embedder.limits.body_bytes
        content, received, seconds = bytearray(), 0, self._services.upload_seconds
        try:
            async with asyncio.timeout(seconds):
                async for chunk in chunks:
                    received += len(chunk.content)
                    if received > 2 * limit:
                        break
                    if received <= limit:
                        content += chunk.content
        except TimeoutError as error:
            raise SlowUpload(f"the image did not come within {seconds:g} seconds") from error
        if received > limit:
            raise ImageTooLarge(f"the image has {received} bytes or more; the limit is {limit}")
        if not content:
            raise InvalidImage("the stream is empty; send the image's bytes")
        return bytes(content)

    def _begin(self, context: Context) -> Call:
        given = headers_of(context.invocation_metadata()).get("x-request-id", "")
        deadline, remaining = self._services.deadline(), context.time_remaining()
        if remaining is not None:
            deadline = min(deadline, time.monotonic() + remaining)
        return Call(request_id(given), deadline)

    async def _admit(self, context: Context) -> str:
        """The tenant; each request of a session counts against its rate."""
        return (await self._services.gate.admit(headers_of(context.invocation_metadata()))).tenant

    @contextmanager
    def _counted(self, method: str, call: Call, context: Context) -> Iterator[None]:
        headers = headers_of(context.invocation_metadata())
        with self._services.observer.request(call.request_id, headers) as record:
            try:
                yield
            finally:
                record.route, record.code, record.status = f"/{SERVICE}/{method}", call.code, call.status.name
                record.tenant = call.tenant

    @asynccontextmanager
    async def _call(self, method: str, context: Context) -> AsyncIterator[Call]:
        """Around every call but the streaming one: counts it, and answers a failure with its status and code."""
        call = self._begin(context)
        with self._counted(method, call, context):
            try:
                call.tenant = await self._admit(context)
                yield call
                call.code, call.status = "ok", grpc.StatusCode.OK
                context.set_trailing_metadata((("x-request-id", call.request_id),))
            except Exception as error:  # noqa: BLE001 - the transport's edge: whatever it is, the caller gets an answer
                failure = _fail(call, error)
                await context.abort(failure.status, failure.error.detail, _trailers(call, failure))


def _fail(call: Call, error: Exception) -> Failure:
    """What to tell the caller; the request is counted under the error's code."""
    if isinstance(error, ServiceError):
        status = status_of(error)
        call.code, call.status = status.code, status.grpc
        told = pb.Error(code=status.code, detail=error.message, pointer=error.pointer or "")
        return Failure(status.grpc, told, error.retry_after if isinstance(error, TemporaryError) else None)
    _log.error("request %s failed", call.request_id, exc_info=error)
    call.code, call.status = "internal", grpc.StatusCode.INTERNAL
    detail = "the service failed; the operator's log has the request id"
    return Failure(grpc.StatusCode.INTERNAL, pb.Error(code="internal", detail=detail))


def _trailers(call: Call, failure: Failure) -> tuple[tuple[str, str], ...]:
    trailers = [("x-request-id", call.request_id), ("ovsam-code", failure.error.code)]
    if failure.error.pointer:
        trailers.append(("ovsam-pointer", failure.error.pointer))
    if failure.retry_after is not None:
        trailers.append(("grpc-retry-pushback-ms", str(round(failure.retry_after * 1000))))
    return tuple(trailers)
