"""One stream of segment requests: the newest wins, and work on an older one ends when it comes."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from service.transports import ovsam_pb2 as pb
from service.transports.grpc_messages import named_image
from service.transports.requests import NamedImage

Work = Callable[[pb.SegmentRequest], AsyncGenerator[pb.SegmentReply, None]]


class OpenImage:
    """The image that a call, or a session since it last named one, is about."""

    def __init__(self, image: pb.Image) -> None:
        self._image = image
        self._named: NamedImage | None = None

    async def named(self) -> NamedImage:
        """Its name, found once: hashing a file takes long enough to leave the event loop, reading a digest does not."""
        if self._named is None:
            image = self._image
            self._named = await asyncio.to_thread(named_image, image) if image.content else named_image(image)
        return self._named

    def embedded(self) -> None:
        """Let go of the file's bytes, which a session need not hold any longer."""
        if self._named is not None:
            self._named = (self._named[0], None)
            self._image = pb.Image()


class Session:
    """Answers requests as they come, with what `work` replies to each."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._replies: asyncio.Queue[pb.SegmentReply | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._newest = 0
        self._ending = False

    async def replies(self, requests: AsyncIterator[pb.SegmentRequest]) -> AsyncIterator[pb.SegmentReply]:
        """The replies, until the requests and the work on the last of them have ended."""
        reader = asyncio.ensure_future(self._read(requests))
        try:
            while (reply := await self._replies.get()) is not None:
                yield reply
        finally:
            tasks = [task for task in (reader, self._task) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def end(self) -> None:
        """Finish what is being worked on and take no further request."""
        self._ending = True
        if self._task is None or self._task.done():
            self._replies.put_nowait(None)

    async def _read(self, requests: AsyncIterator[pb.SegmentRequest]) -> None:
        try:
            async for request in requests:
                if not self._ending and request.sequence >= self._newest:
                    self._begin(request)
        finally:
            self.end()

    def _begin(self, request: pb.SegmentRequest) -> None:
        self._newest = request.sequence
        if self._task is not None:
            self._task.cancel()
        while not self._replies.empty():  # replies to older requests that were not sent in time
            self._replies.get_nowait()
        self._task = asyncio.ensure_future(self._answer(request))

    async def _answer(self, request: pb.SegmentRequest) -> None:
        async with aclosing(self._work(request)) as replies:  # a request that is overtaken ends here, in its own task
            async for reply in replies:
                reply.sequence = request.sequence
                self._replies.put_nowait(reply)
        if self._ending:
            self._replies.put_nowait(None)
