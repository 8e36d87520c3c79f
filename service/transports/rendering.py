"""Values of the core to the wire format."""

import base64
from collections.abc import Callable
from functools import partial
from typing import Literal

from service.core.encodings import encode_png, encode_polygons, encode_rle
from service.core.requests import Segment, SegmentReply
from service.core.spec import ModelSpec
from service.core.types import BoolArray
from service.transports.schemas import (
    ClassOut,
    ImageOut,
    MaskOut,
    ModelOut,
    OutputIn,
    PngOut,
    PolygonOut,
    ResultError,
    ResultOut,
    RingOut,
    RleOut,
    SegmentOut,
)
from service.transports.status import status_of


def mask_renderer(output: OutputIn) -> Callable[[BoolArray], MaskOut] | None:
    """The function that encodes each mask as asked for; None for no mask."""
    if output.mask == "none":
        return None
    return partial(_render_mask, form=output.mask, simplify=output.simplify)


def render_reply(reply: SegmentReply, *, output: OutputIn, spec: ModelSpec, request_id: str) -> SegmentOut:
    """The answer to a segment request."""
    size = reply.embedding.letterbox.original
    return SegmentOut.model_construct(
        request_id=request_id,
        model=ModelOut.model_construct(name=spec.variant, revision=spec.revision),
        image=ImageOut.model_construct(digest=reply.embedding.key.digest, width=size.width, height=size.height),
        results=[render_segment(segment, bbox=output.bbox) for segment in reply.segments],
        cache=reply.embedding.source,
        timing_ms={name: round(seconds * 1000, 3) for name, seconds in reply.timing.stages.items()},
    )


def render_segment(segment: Segment, *, bbox: bool) -> ResultOut:
    """One prompt's answer."""
    if segment.error is not None:
        error = segment.error
        code = status_of(error).code
        return ResultOut(id=segment.id, error=ResultError(code=code, detail=error.message, pointer=error.pointer))
    shown = segment.box if bbox and segment.area else None
    classes = segment.classes
    return ResultOut.model_construct(
        id=segment.id,
        mask=segment.mask if isinstance(segment.mask, MaskOut) else None,
        mask_ref=segment.mask_ref,
        bbox=shown,
        area=segment.area,
        stability=round(segment.stability, 4),
        classes=None if classes is None else [ClassOut.model_construct(name=n, score=round(s, 6)) for n, s in classes],
        error=None,
    )


def _render_mask(mask: BoolArray, *, form: Literal["rle", "polygon", "png"], simplify: float) -> MaskOut:
    height, width = mask.shape
    size = (height, width)
    if form == "rle":
        return RleOut(size=size, counts=encode_rle(mask))
    if form == "png":
        return PngOut(size=size, base64=base64.b64encode(encode_png(mask)).decode())
    rings = encode_polygons(mask, simplify=simplify)
    return PolygonOut.model_construct(
        format="polygon",
        size=size,
        rings=[RingOut.model_construct(points=ring.points.tolist(), hole=ring.hole) for ring in rings],
    )
