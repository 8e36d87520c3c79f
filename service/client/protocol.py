"""The conversation with the service, without I/O: what to send next, given what came back.

A flow is a generator that yields calls and pauses and is sent the outcome of each, so that the blocking and the
asyncio client differ in how they perform these two, and in nothing else.
"""

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias, TypeVar

import httpx

from service.client.answers import Answer, SegmentedObject, parse_answer, parse_object
from service.client.errors import RequestFailed, Unreachable
from service.client.images import ImageFile
from service.client.options import EverythingOptions, SegmentOptions, everything_body, segment_body
from service.client.retries import Retries

_KNOWN = 10_000  # digests remembered as known to the service
_NOTHING: Mapping[str, str] = MappingProxyType({})
_IMAGE = "x-image-digest"  # for load balancers, which keep an image's calls together by it; the service reads the body


class Call(NamedTuple):
    """A request; with `stream` the body of a good answer is left unread."""

    method: str
    path: str
    headers: Mapping[str, str] = _NOTHING
    content: bytes | None = None
    stream: bool = False


class Pause(NamedTuple):
    """Seconds to wait."""

    seconds: float


T = TypeVar("T")
Outcome: TypeAlias = httpx.Response | httpx.TransportError | None
Flow: TypeAlias = Generator[Call | Pause, Outcome, T]


@dataclass(frozen=True, slots=True)
class Upload:
    """An image the service knows now; `known` says that it did before, and no byte of the image was sent."""

    digest: str
    known: bool


@dataclass(slots=True)
class Protocol:
    """Flows of one client, which remembers what the service has been sent."""

    retries: Retries
    _known: dict[str, None] = field(default_factory=dict)

    def upload(self, image: ImageFile, *, asynchronous: bool = False) -> Flow[Upload]:
        """Ask whether the image is known, and send it only if not."""
        if image.digest in self._known:
            return Upload(image.digest, known=True)
        answer = yield from self._exchange(Call("HEAD", f"/v1/images/{image.digest}", {_IMAGE: image.digest}))
        known = answer.status_code != httpx.codes.NOT_FOUND
        if known:
            _good(answer)
        else:
            yield from self._send(image, asynchronous=asynchronous)
        self._remember(image.digest)
        return Upload(image.digest, known=known)

    def segment(self, image: ImageFile, options: SegmentOptions) -> Flow[Answer]:
        """Masks and names for prompts."""
        answer = yield from self._ask(image, "/v1/segment", segment_body(image.digest, options))
        return parse_answer(answer.json())

    def segment_everything(self, image: ImageFile, options: EverythingOptions) -> Flow[Answer]:
        """All objects at once."""
        answer = yield from self._ask(image, "/v1/segment/everything", everything_body(image.digest, options))
        return parse_answer(answer.json())

    def open_everything(self, image: ImageFile, options: EverythingOptions) -> Flow[httpx.Response]:
        """The answer whose lines are objects (`ObjectReader`), not read yet."""
        body = everything_body(image.digest, options)
        return (yield from self._ask(image, "/v1/segment/everything", body, stream=True))

    def vocabularies(self) -> Flow[list[str]]:
        """The names that `vocabulary` may have."""
        answer = yield from self._exchange(Call("GET", "/v1/vocabularies"))
        return list(_good(answer).json()["vocabularies"])

    def _ask(
        self, image: ImageFile, path: str, body: Mapping[str, Any], *, stream: bool = False
    ) -> Flow[httpx.Response]:
        """Ask about an image; when the service has forgotten it meanwhile, send it and ask again."""
        if image.content is not None:
            yield from self.upload(image)
        accepted = "application/x-ndjson" if stream else "*/*"
        headers = {"content-type": "application/json", "accept": accepted, _IMAGE: image.digest}
        call = Call("POST", path, headers, json.dumps(body).encode(), stream)
        try:
            return _good((yield from self._exchange(call)))
        except RequestFailed as error:
            if error.code != "image-unknown" or image.content is None:
                raise
        yield from self._send(image)
        return _good((yield from self._exchange(call)))

    def _send(self, image: ImageFile, *, asynchronous: bool = False) -> Flow[None]:
        if image.content is None:
            raise RequestFailed("the service does not know this digest", code="image-unknown", status=404)
        headers = {"content-type": "application/octet-stream", _IMAGE: image.digest}
        headers |= {"prefer": "respond-async"} if asynchronous else {}
        _good((yield from self._exchange(Call("POST", "/v1/images", headers, image.content))))

    def _remember(self, digest: str) -> None:
        self._known[digest] = None
        if len(self._known) > _KNOWN:
            self._known.pop(next(iter(self._known)))

    def _exchange(self, call: Call) -> Flow[httpx.Response]:
        """One call, tried again as `retries` allows."""
        attempt = 0
        while True:
            outcome = yield call
            if outcome is None:
                raise TypeError("a call's outcome is an answer or an error")
            attempt += 1
            pause = self.retries.pause(attempt, outcome)
            if pause is not None:
                yield Pause(pause)
            elif isinstance(outcome, httpx.TransportError):
                raise Unreachable(f"no answer from the service: {outcome!r}") from outcome
            else:
                return outcome


class ObjectReader:
    """Reads the lines of the everything stream: a head, the objects, and an end that says whether all went well."""

    def __init__(self) -> None:
        self._ended = False

    def read(self, line: str) -> SegmentedObject | None:
        """The object of a line that has one; raises RequestFailed when the service failed on the way."""
        fields = json.loads(line)
        if "done" not in fields:
            return parse_object(fields) if "id" in fields else None
        self._ended = True
        if not fields["done"]:
            raise RequestFailed(fields["error"]["detail"], code=fields["error"]["code"])
        return None

    def end(self) -> None:
        """Raise Unreachable when lines are missing."""
        if not self._ended:
            raise Unreachable("the answer broke off")


def _good(answer: httpx.Response) -> httpx.Response:
    """The answer, when it is none of an error."""
    if answer.is_success:
        return answer
    try:
        fields = answer.json()
        code, detail, request_id = fields["code"], fields["detail"], fields["request_id"]
    except (ValueError, KeyError, TypeError):  # not the service's own words, but something's in between
        raise RequestFailed(answer.text[:200], code="http-error", status=answer.status_code) from None
    pointer = next((item["pointer"] for item in fields.get("errors", [])), None)
    raise RequestFailed(detail, code=code, status=answer.status_code, pointer=pointer, request_id=request_id)
