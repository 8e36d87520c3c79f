"""The client: `Client(url)` blocks, `AsyncClient(url)` awaits; both perform the flows of `protocol`.

with Client("http://127.0.0.1:8000") as client:
    for found in client.segment("desk.jpg", points=[(340, 200)], names=["cup", "plate"]):
        print(found.name, found.score, found.mask.sum())
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Self, TypeVar, Unpack

import httpx

from service.client.answers import Answer, SegmentedObject
from service.client.errors import Unreachable
from service.client.images import ImageLike, read_image
from service.client.options import EverythingOptions, SegmentOptions
from service.client.parallel import Failure, in_tasks, in_threads
from service.client.protocol import Call, Flow, ObjectReader, Outcome, Pause, Protocol, Upload
from service.client.retries import Retries

T = TypeVar("T")
Wanted = tuple[ImageLike, SegmentOptions]
"""An image and what to segment in it."""


class Client:
    """Blocking; safe to share among threads, which then share its connections."""

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 60.0,
        retries: Retries | None = None,
        headers: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(base_url=url, timeout=timeout, headers=headers, transport=transport)
        self._protocol = Protocol(retries or Retries())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def segment(self, image: ImageLike, **options: Unpack[SegmentOptions]) -> Answer:
        """Masks and names for points and boxes; the image is sent only when the service does not know it."""
        return self._run(self._protocol.segment(read_image(image), options))

    def segment_batch(
        self, wanted: Iterable[Wanted], *, jobs: int = 4, title: str | None = None
    ) -> Iterator[tuple[Wanted, Answer | Failure]]:
        """Many images, `jobs` at a time, in order; one that fails fails alone. A `title` shows progress under it."""
        return in_threads(lambda item: self.segment(item[0], **item[1]), wanted, jobs=jobs, title=title)

    def segment_everything(self, image: ImageLike, **options: Unpack[EverythingOptions]) -> Answer:
        """Every object of an image, most stable first, all at once."""
        return self._run(self._protocol.segment_everything(read_image(image), options))

    def everything(self, image: ImageLike, **options: Unpack[EverythingOptions]) -> Iterator[SegmentedObject]:
        """Every object of an image, each as soon as the service has it."""
        response = self._run(self._protocol.open_everything(read_image(image), options))
        reader = ObjectReader()
        try:
            for line in response.iter_lines():
                found = reader.read(line)
                if found is not None:
                    yield found
        except httpx.TransportError as error:
            raise Unreachable(f"the answer broke off: {error!r}") from error
        finally:
            response.close()
        reader.end()

    def upload(self, image: ImageLike) -> Upload:
        """Have the image embedded, and wait for it."""
        return self._run(self._protocol.upload(read_image(image)))

    def prewarm(self, image: ImageLike) -> Upload:
        """Have the image embedded in the background, after all interactive work."""
        return self._run(self._protocol.upload(read_image(image), asynchronous=True))

    def vocabularies(self) -> list[str]:
        """The names that `vocabulary` may have."""
        return self._run(self._protocol.vocabularies())

    def _run(self, flow: Flow[T]) -> T:
        outcome: Outcome = None
        while True:
            try:
                wanted = flow.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            outcome = self._perform(wanted)

    def _perform(self, wanted: Call | Pause) -> Outcome:
        if isinstance(wanted, Pause):
            time.sleep(wanted.seconds)
            return None
        request = _request(self._http, wanted)
        try:
            response = self._http.send(request, stream=wanted.stream)
            if response.is_error:
                response.read()
            return response
        except httpx.TransportError as error:
            return error


class AsyncClient:
    """The same on asyncio."""

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 60.0,
        retries: Retries | None = None,
        headers: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=timeout, headers=headers, transport=transport)
        self._protocol = Protocol(retries or Retries())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def segment(self, image: ImageLike, **options: Unpack[SegmentOptions]) -> Answer:
        """As `Client.segment`."""
        return await self._run(self._protocol.segment(await asyncio.to_thread(read_image, image), options))

    def segment_batch(
        self, wanted: Iterable[Wanted], *, jobs: int = 4, title: str | None = None
    ) -> AsyncIterator[tuple[Wanted, Answer | Failure]]:
        """As `Client.segment_batch`."""
        return in_tasks(lambda item: self.segment(item[0], **item[1]), wanted, jobs=jobs, title=title)

    async def segment_everything(self, image: ImageLike, **options: Unpack[EverythingOptions]) -> Answer:
        """As `Client.segment_everything`."""
        return await self._run(self._protocol.segment_everything(await asyncio.to_thread(read_image, image), options))

    async def everything(
        self, image: ImageLike, **options: Unpack[EverythingOptions]
    ) -> AsyncIterator[SegmentedObject]:
        """As `Client.everything`."""
        file = await asyncio.to_thread(read_image, image)
        response = await self._run(self._protocol.open_everything(file, options))
        reader = ObjectReader()
        try:
            async for line in response.aiter_lines():
                found = reader.read(line)
                if found is not None:
                    yield found
        except httpx.TransportError as error:
            raise Unreachable(f"the answer broke off: {error!r}") from error
        finally:
            await response.aclose()
        reader.end()

    async def upload(self, image: ImageLike) -> Upload:
        """As `Client.upload`."""
        return await self._run(self._protocol.upload(await asyncio.to_thread(read_image, image)))

    async def prewarm(self, image: ImageLike) -> Upload:
        """As `Client.prewarm`."""
        file = await asyncio.to_thread(read_image, image)
        return await self._run(self._protocol.upload(file, asynchronous=True))

    async def vocabularies(self) -> list[str]:
        """As `Client.vocabularies`."""
        return await self._run(self._protocol.vocabularies())

    async def _run(self, flow: Flow[T]) -> T:
        outcome: Outcome = None
        while True:
            try:
                wanted = flow.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            outcome = await self._perform(wanted)

    async def _perform(self, wanted: Call | Pause) -> Outcome:
        if isinstance(wanted, Pause):
            await asyncio.sleep(wanted.seconds)
            return None
        request = _request(self._http, wanted)
        try:
            response = await self._http.send(request, stream=wanted.stream)
            if response.is_error:
                await response.aread()
            return response
        except httpx.TransportError as error:
            return error


def _request(http: httpx.Client | httpx.AsyncClient, call: Call) -> httpx.Request:
    return http.build_request(call.method, call.path, headers=dict(call.headers), content=call.content)
