"""CVAT's serverless contract: an interactor, a detector, and the part of Nuclio's dashboard that CVAT asks for."""

import asyncio
import base64
import binascii
import time
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Header, HTTPException, Query, Request, Response
from pydantic import ValidationError
from pydantic_core import to_json

from service.core.errors import InvalidPrompt, InvalidRequest
from service.core.everything import EverythingRules, segment_everything
from service.core.images import digest_of
from service.core.requests import Classify, PromptRequest, Segment, SegmentRequest
from service.core.types import BoolArray, Box, Point, Prompt
from service.transports.cvat_functions import DETECTOR, INTERACTOR, describe_functions
from service.transports.cvat_masks import crop_runs, flat_crop, frame_json, largest_outline
from service.transports.cvat_schemas import DetectorIn, ImageIn, InteractorIn
from service.transports.http_api import Ready, Tenant
from service.transports.problems import MalformedRequest
from service.transports.requests import check_items
from service.transports.services import Services

_MIN_SCORE = 0.5  # of a detected object when CVAT sends no threshold
_RULES = EverythingRules(min_stability=0.25)  # loose, since masks without a sure name are dropped afterwards
_DETECT_SECONDS = 90.0  # nobody waits at a click here, and CVAT gives up after 120
_Body = TypeVar("_Body", bound=ImageIn)
Reply = Annotated[Literal["both", "mask", "shapes"], Query()]
router = APIRouter(prefix="/integrations/cvat", include_in_schema=False)


@router.post("")
@router.post("/")
async def interact(request: Request, ready: Ready, tenant: Tenant, reply: Reply = "both") -> Response:
    """The mask of one prompted object: `mask` for CVAT's older interface, `shapes` for its newer one."""
    body = await _parse(request, InteractorIn)
    return await _interact(body, ready, tenant, reply)


@router.post("/detector")
async def detect(request: Request, ready: Ready, tenant: Tenant) -> Response:
    """Masks and names of all objects, from the model's default vocabulary."""
    return await _detect(await _parse(request, DetectorIn), ready, tenant)


@router.get("/api/functions")
async def functions(request: Request, ready: Ready, tenant: Tenant) -> dict[str, Any]:
    """The functions there are, as Nuclio's dashboard lists them."""
    vocabulary = await ready.vocabularies.find(tenant, ready.vocabularies.default)
    return describe_functions(vocabulary.names, port=request.url.port or 80)


@router.get("/api/functions/{name}")
async def function(name: str, request: Request, ready: Ready, tenant: Tenant) -> dict[str, Any]:
    """One of them."""
    found = (await functions(request, ready, tenant)).get(name)
    if found is None:
        raise HTTPException(404, f"there is no function {name!r}")
    described: dict[str, Any] = found
    return described


@router.post("/api/function_invocations")
async def invoke(
    request: Request,
    ready: Ready,
    tenant: Tenant,
    name: Annotated[str, Header(alias="x-nuclio-function-name")] = "",
    reply: Reply = "both",
) -> Response:
    """Call a function by name, as through Nuclio's dashboard."""
    if name == INTERACTOR:
        return await interact(request, ready, tenant, reply)
    if name == DETECTOR:
        return await detect(request, ready, tenant)
    raise HTTPException(404, f"there is no function {name!r}")


async def _interact(body: InteractorIn, ready: Services, tenant: str, reply: str) -> Response:
    """Masks only: CVAT's interface has the user choose the label, so no name is looked for."""

    def render(mask: BoolArray) -> bytes:
        parts = []
        if reply != "shapes":
            parts.append(b'"mask":' + frame_json(mask))
        if reply != "mask":
            shapes = [{"type": "mask", "points": crop_runs(mask), "attributes": []}] if mask.any() else []
            parts.append(b'"shapes":' + to_json(shapes))
        return b"{" + b",".join(parts) + b"}"

    digest, content = await asyncio.to_thread(_decode, body.image)
    prompts = [PromptRequest("0", _prompt(body))]
    request = SegmentRequest(
        tenant=tenant, digest=digest, content=content, prompts=prompts, classify=None, render=render, keep=False
    )
    answer = (await ready.segmenter.segment(request, deadline=ready.deadline())).segments[0]
    return Response(answer.mask, media_type="application/json")


async def _detect(body: DetectorIn, ready: Services, tenant: str) -> Response:
    def render(mask: BoolArray) -> dict[str, Any]:
        return {"type": "mask", "points": largest_outline(mask), "mask": flat_crop(mask)}

    threshold = _MIN_SCORE if body.threshold is None else body.threshold
    digest, content = await asyncio.to_thread(_decode, body.image)
    request = SegmentRequest(
        tenant=tenant,
        digest=digest,
        content=content,
        prompts=(),
        classify=Classify(top_k=1, min_score=threshold),
        render=render,
        background=True,
        keep=False,
    )
    found = segment_everything(ready.segmenter, request, rules=_RULES, deadline=time.monotonic() + _DETECT_SECONDS)
    shapes = [
        {"confidence": str(round(item.classes[0].score, 4)), "label": item.classes[0].name, **item.mask}
        async for item in found
        if isinstance(item, Segment) and item.classes and isinstance(item.mask, dict)
    ]
    return Response(await asyncio.to_thread(to_json, shapes), media_type="application/json")


def _prompt(body: InteractorIn) -> Prompt:
    points = [Point(x, y) for x, y in body.pos_points or ()]
    points += [Point(x, y, foreground=False) for x, y in body.neg_points or ()]
    if not body.obj_bbox:
        return Prompt(points=tuple(points))
    if len(body.obj_bbox) != 2:
        raise InvalidPrompt("obj_bbox needs two corners", pointer="/obj_bbox")
    (x1, y1), (x2, y2) = body.obj_bbox
    return Prompt(points=tuple(points), box=Box(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)))


def _decode(image: str) -> tuple[str, bytes]:
    """The frame's digest and bytes."""
    try:
        content = base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest("image is not base64", pointer="/image") from error
    return digest_of(content), content


async def _parse(request: Request, kind: type[_Body]) -> _Body:
    content = await request.body()
    check_items(content)
    try:
        return await asyncio.to_thread(kind.model_validate_json, content)
    except ValidationError as error:
        raise MalformedRequest(error) from error
