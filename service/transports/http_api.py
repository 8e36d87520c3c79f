"""REST: each handler parses, calls the core and renders; no decision is taken here."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from service.core.access import Caller
from service.core.errors import ServiceError, UnknownImage
from service.core.everything import EverythingRules, segment_everything
from service.core.images import digest_of
from service.core.requests import Segment, SegmentReply
from service.transports import requests, schemas
from service.transports.openapi import any_body, json_body
from service.transports.rendering import render_reply, render_segment
from service.transports.services import Services
from service.transports.status import status_of


def services(request: Request) -> Services:
    """The ready objects, put into the app's state by the composition root."""
    ready: Services = request.app.state.services
    return ready


def tenant_of(request: Request) -> str:
    """Whose request it is: the gate before every route has found out."""
    caller: Caller = request.scope["state"]["caller"]
    return caller.tenant


Ready = Annotated[Services, Depends(services)]
Tenant = Annotated[str, Depends(tenant_of)]
DigestPath = Annotated[str, Path(pattern=schemas.DIGEST_PATTERN)]
NamePath = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
_PROBLEM = {"model": schemas.Problem, "content": {"application/problem+json": {}}}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: _PROBLEM | {"description": text}
    for code, text in {
        400: "malformed request",
        401: "API key missing or not valid",
        403: "URL not allowed",
        404: "image or vocabulary not known",
        408: "the body took too long to come",
        413: "over a limit of bytes or pixels",
        415: "not a readable image",
        422: "invalid prompt or names",
        429: "more requests than the key's rate; see Retry-After",
        503: "overloaded, warming or backend unavailable; see Retry-After",
        504: "time limit exceeded",
    }.items()
}


router = APIRouter(responses=_PROBLEMS)


@router.post(
    "/v1/images", status_code=201, response_model=schemas.UploadOut, openapi_extra=any_body(schemas.ImageUrl, raw=True)
)
async def put_image(
    request: Request, ready: Ready, tenant: Tenant, prefer: Annotated[str, Header()] = ""
) -> schemas.UploadOut | JSONResponse:
    """Upload an image and embed it; with `Prefer: respond-async` the embedding is made in the background.

    Behind a load balancer that keeps an image's calls on one gateway, send the image's digest as `X-Image-Digest` with
    this call and all that follow. The service itself does not read the header.
    """
    content = await requests.parse_upload(request, fetch=ready.fetch)
    key = ready.embedder.key(tenant, await asyncio.to_thread(digest_of, content))
    if "respond-async" in prefer:
        ready.embedder.prewarm(key, content)
        return schemas.UploadOut(image=key.digest, embedding="pending")
    embedding = await ready.segmenter.embed(key, content, deadline=ready.deadline())
    size = embedding.letterbox.original
    return schemas.UploadOut(image=key.digest, width=size.width, height=size.height, embedding="ready")


@router.head("/v1/images/{digest}", response_class=Response)
async def has_image(digest: DigestPath, ready: Ready, tenant: Tenant) -> Response:
    """200 when an embedding is kept or being made, else 404."""
    embedding = await ready.embedder.find(ready.embedder.key(tenant, digest))
    if embedding is None:
        raise UnknownImage(f"no embedding is kept for {digest}")
    return Response(headers={"etag": f'"{digest}"'})


@router.delete("/v1/images/{digest}", status_code=204, response_class=Response)
async def delete_image(digest: DigestPath, ready: Ready, tenant: Tenant) -> Response:
    """Forget an image in every tier of the cache."""
    await ready.embedder.forget(ready.embedder.key(tenant, digest))
    return Response(status_code=204)


@router.post(
    "/segment", response_model=schemas.SegmentOut, openapi_extra=any_body(schemas.SegmentIn), include_in_schema=False
)
@router.post("/v1/segment", response_model=schemas.SegmentOut, openapi_extra=any_body(schemas.SegmentIn))
async def segment(request: Request, ready: Ready, tenant: Tenant) -> Response:
    """Masks and names for prompts on one image."""
    body, content = await requests.parse_body(request, schemas.SegmentIn)
    image = await requests.load_image(body.image, content, fetch=ready.fetch)
    wanted = requests.segment_request(body, image, tenant=tenant)
    reply = await ready.segmenter.segment(wanted, deadline=ready.deadline())
    request_id = request.scope["state"]["request_id"]
    answer = render_reply(reply, output=body.output, spec=ready.backend.spec, request_id=request_id)
    timing = ", ".join(f"{stage};dur={spent}" for stage, spent in answer.timing_ms.items())
    headers = {"server-timing": timing, "etag": f'"{answer.image.digest}"'}
    return Response(answer.model_dump_json(), media_type="application/json", headers=headers)


@router.post(
    "/v1/segment/everything",
    response_model=schemas.SegmentOut,
    responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
    openapi_extra=any_body(schemas.EverythingIn),
)
async def everything(request: Request, ready: Ready, tenant: Tenant, accept: Annotated[str, Header()] = "") -> Response:
    """Every object that a grid of clicks finds: NDJSON when `Accept` asks for it, else one JSON."""
    body, content = await requests.parse_body(request, schemas.EverythingIn)
    image = await requests.load_image(body.image, content, fetch=ready.fetch)
    wanted = requests.everything_request(body, image, tenant=tenant)
    rules = EverythingRules(
        grid=body.grid, min_stability=body.min_stability, min_area=body.min_area, overlap=body.overlap
    )
    found = segment_everything(ready.segmenter, wanted, rules=rules, deadline=ready.deadline())
    opened = await anext(found)  # errors of the image or the vocabulary still get their own status
    if not isinstance(opened, SegmentReply):
        raise TypeError("the first item is the reply")
    head = render_reply(
        opened, output=body.output, spec=ready.backend.spec, request_id=request.scope["state"]["request_id"]
    )
    if "application/x-ndjson" in accept:
        return StreamingResponse(_lines(head, found, body.output), media_type="application/x-ndjson")
    head.results = [render_segment(item, bbox=body.output.bbox) async for item in found if isinstance(item, Segment)]
    return Response(head.model_dump_json(), media_type="application/json")


async def _lines(
    head: schemas.SegmentOut, found: AsyncIterator[SegmentReply | Segment], output: schemas.OutputIn
) -> AsyncIterator[str]:
    """The head without results, a line for each object, and a last line that says whether all went well."""
    yield head.model_dump_json(exclude={"results"}) + "\n"
    count = 0
    try:
        async for item in found:
            if isinstance(item, Segment):
                count += 1
                yield render_segment(item, bbox=output.bbox).model_dump_json() + "\n"
    except ServiceError as error:
        failure = schemas.ResultError(code=status_of(error).code, detail=error.message)
        yield f'{{"done":false,"error":{failure.model_dump_json()}}}\n'
        return
    yield f'{{"done":true,"objects":{count}}}\n'


@router.get("/v1/models", response_model=schemas.ModelsOut)
async def models(ready: Ready) -> schemas.ModelsOut:
    """The model served, with its measured quality."""
    spec = ready.backend.spec
    card = schemas.ModelCard(
        name=spec.variant,
        revision=spec.revision,
        precision=spec.precision,
        licence=spec.licence,
        input_size=spec.input_size,
        default_vocabulary=spec.default_vocabulary,
        quality=dict(spec.quality),
    )
    return schemas.ModelsOut(models=[card])


@router.get("/v1/vocabularies", response_model=schemas.VocabulariesOut)
async def vocabularies(ready: Ready, tenant: Tenant) -> schemas.VocabulariesOut:
    """The vocabularies that a request may name."""
    names = await ready.vocabularies.names(tenant)
    return schemas.VocabulariesOut(default=ready.vocabularies.default, vocabularies=names)


@router.get("/v1/vocabularies/{name}", response_model=schemas.VocabularyOut)
async def vocabulary(name: NamePath, ready: Ready, tenant: Tenant) -> schemas.VocabularyOut:
    """One vocabulary with its class names."""
    found = await ready.vocabularies.find(tenant, name)
    return schemas.VocabularyOut(
        name=name,
        title=found.title,
        licence=found.licence,
        source=found.source,
        size=len(found.classes),
        names=list(found.names),
    )


@router.put(
    "/v1/vocabularies/{name}", status_code=204, response_class=Response, openapi_extra=json_body(schemas.VocabularyIn)
)
async def put_vocabulary(name: NamePath, request: Request, ready: Ready, tenant: Tenant) -> Response:
    """Keep or replace a vocabulary of one's own."""
    body = await requests.parse_json(request, schemas.VocabularyIn)
    await ready.vocabularies.define(tenant, name, names=body.names, templates=body.templates)
    return Response(status_code=204)


@router.delete("/v1/vocabularies/{name}", status_code=204, response_class=Response)
async def delete_vocabulary(name: NamePath, ready: Ready, tenant: Tenant) -> Response:
    """Forget a vocabulary of one's own."""
    await ready.vocabularies.remove(tenant, name)
    return Response(status_code=204)


@router.get("/healthz", response_model=schemas.Health)
async def healthz() -> schemas.Health:
    """The process is alive."""
    return schemas.Health(status="alive")


@router.get("/readyz", response_model=schemas.Health)
async def readyz(ready: Ready) -> schemas.Health:
    """Every model that a click needs has just answered a real probe inference."""
    await ready.check_ready()
    return schemas.Health(status="ready")
