"""HTTP requests to the core's requests: JSON or multipart, image by digest, inline, or URL."""

import asyncio
import base64
import binascii
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from service.core.errors import ImageTooLarge, InvalidImage, InvalidRequest
from service.core.images import digest_of
from service.core.requests import Classify, PromptRequest, SegmentRequest
from service.core.types import Box, Point, Prompt
from service.transports.fetching import Fetch
from service.transports.problems import MalformedRequest
from service.transports.rendering import mask_renderer
from service.transports.schemas import ClassifyIn, EverythingIn, ImageUrl, InlineImage, PromptIn, SegmentIn, Strict

Body = TypeVar("Body", bound=Strict)
ImageIn = str | InlineImage | ImageUrl | None
NamedImage = tuple[str, bytes | None]
"""A digest, and the file's bytes when they came too."""

_ITEMS = 250_000  # commas in a JSON body: five times what 256 prompts of 64 points or 30,000 names have
_OBJECTS = 100_000


def check_items(content: bytes) -> None:
    """Raise ImageTooLarge when JSON has more items than any valid request: 30 MiB of them would take 2 GB and 15 s."""
    _check(content, b",", limit=_ITEMS)


def check_objects(content: bytes) -> None:
    """The same where long lists of numbers are right, as in drafts of brush masks."""
    _check(content, b"{", limit=_OBJECTS)


def _check(content: bytes, sign: bytes, *, limit: int) -> None:
    count = content.count(sign)
    if count > limit:
        raise ImageTooLarge(f"the JSON has {count} items; the limit is {limit}")


async def parse_json(request: Request, kind: type[Body]) -> Body:
    """The JSON body; raises InvalidRequest."""
    return _validate(kind, await request.body())


async def parse_body(request: Request, kind: type[Body]) -> tuple[Body, bytes | None]:
    """The JSON body, and the bytes of a multipart "image" part; raises InvalidRequest."""
    if not _is_multipart(request):
        return _validate(kind, await request.body()), None
    parts = await _parts(request)
    if "request" not in parts:
        raise InvalidRequest('a multipart request needs a part "request" with the JSON', pointer="/request")
    return _validate(kind, parts["request"]), _image_part(parts)


async def parse_upload(request: Request, *, fetch: Fetch) -> bytes:
    """The bytes of an uploaded image: a multipart "image" part, a URL in JSON, or the raw body."""
    if _is_multipart(request):
        return _image_part(await _parts(request))
    content = await request.body()
    if request.headers.get("content-type", "").startswith("application/json"):
        return await fetch(_validate(ImageUrl, content).url)
    if not content:
        raise InvalidImage("the body is empty; send the image's bytes")
    return content


async def load_image(image: ImageIn, content: bytes | None, *, fetch: Fetch) -> NamedImage:
    """The digest, and the bytes when they came with the request or were fetched for it."""
    if content is not None and image is not None:
        raise InvalidRequest("the image came twice: as a part and in the JSON", pointer="/image")
    if isinstance(image, str):
        return image, None
    if isinstance(image, InlineImage):
        content = await asyncio.to_thread(_decode_base64, image.base64)
    elif isinstance(image, ImageUrl):
        content = await fetch(image.url)
    if content is None:
        raise InvalidRequest("the request names no image", pointer="/image")
    return await asyncio.to_thread(digest_of, content), content


def segment_request(body: SegmentIn, image: NamedImage, *, tenant: str) -> SegmentRequest:
    """What the segmenter is asked."""
    return _request(body, image, tenant=tenant, prompts=_prompts(body.prompts))


def everything_request(body: EverythingIn, image: NamedImage, *, tenant: str) -> SegmentRequest:
    """The same for everything-mode, whose prompts come from the grid."""
    return replace(_request(body, image, tenant=tenant, prompts=()), background=True, keep=False)


def _request(
    body: SegmentIn | EverythingIn, image: NamedImage, *, tenant: str, prompts: Sequence[PromptRequest]
) -> SegmentRequest:
    digest, content = image
    return SegmentRequest(
        tenant=tenant,
        digest=digest,
        content=content,
        prompts=prompts,
        classify=_classify(body.classify),
        render=mask_renderer(body.output),
        keep=body.output.mask_ref,
    )


def _decode_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest("image.base64 is not base64", pointer="/image/base64") from error


def _validate(kind: type[Body], content: bytes) -> Body:
    check_items(content)
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise MalformedRequest(error) from error


def _is_multipart(request: Request) -> bool:
    return request.headers.get("content-type", "").startswith("multipart/form-data")


async def _parts(request: Request) -> dict[str, bytes]:
    """The parts of a multipart body by name."""
    try:
        async with request.form(max_files=2, max_fields=4, max_part_size=16 * 2**20) as form:
            return {
                name: await part.read() if isinstance(part, UploadFile) else part.encode()
                for name, part in form.items()
            }
    except HTTPException as error:
        raise InvalidRequest(f"the multipart body cannot be read: {error.detail}") from error


def _image_part(parts: dict[str, bytes]) -> bytes:
    if "image" not in parts:
        raise InvalidRequest('a multipart request needs a file part "image"', pointer="/image")
    return parts["image"]


def _prompts(prompts: Sequence[PromptIn]) -> list[PromptRequest]:
    return [
        PromptRequest(
            id=prompt.id if prompt.id is not None else str(index),
            prompt=Prompt(
                points=tuple(Point(point.x, point.y, point.label == 1) for point in prompt.points),
                box=Box(*prompt.box) if prompt.box is not None else None,
            ),
            mask_ref=prompt.mask_ref,
        )
        for index, prompt in enumerate(prompts)
    ]


def _classify(classify: ClassifyIn | None) -> Classify | None:
    if classify is None:
        return None
    if classify.vocabulary is not None and classify.names is not None:
        raise InvalidRequest("give a vocabulary or names, not both", pointer="/classify")
    return Classify(
        vocabulary=classify.vocabulary,
        names=tuple(classify.names) if classify.names is not None else None,
        top_k=classify.top_k,
        min_score=classify.min_score,
    )
