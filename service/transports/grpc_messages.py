"""gRPC messages to and from the REST interface's schemas, so that both transports check and answer alike."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from service.core.errors import InvalidRequest
from service.core.images import digest_of
from service.core.requests import SegmentReply, SegmentRequest
from service.core.spec import ModelSpec
from service.transports import ovsam_pb2 as pb
from service.transports import schemas
from service.transports.problems import MalformedRequest
from service.transports.rendering import render_reply
from service.transports.requests import NamedImage, segment_request

_DIGEST: TypeAdapter[str] = TypeAdapter(schemas.Digest)


def named_image(image: pb.Image) -> NamedImage:
    """The image's name; hashes an image that came as bytes."""
    if image.WhichOneof("source") == "content":
        return digest_of(image.content), image.content
    if not image.digest:
        raise InvalidRequest("the request names no image", pointer="/image")
    try:
        return _DIGEST.validate_python(image.digest), None
    except ValidationError as error:
        raise MalformedRequest(error) from error


def core_request(message: pb.SegmentRequest, image: NamedImage, *, tenant: str) -> SegmentRequest:
    """What the segmenter is asked."""
    try:
        body = schemas.SegmentIn.model_validate(_body(message, image[0]))
    except ValidationError as error:
        raise MalformedRequest(error) from error
    return segment_request(body, image, tenant=tenant)


def reply_message(reply: SegmentReply, *, spec: ModelSpec, request_id: str) -> pb.SegmentReply:
    """The answer to a segment request."""
    answer = render_reply(reply, output=schemas.OutputIn(), spec=spec, request_id=request_id)
    return pb.SegmentReply(
        request_id=request_id,
        model=pb.Model(name=answer.model.name, revision=answer.model.revision),
        digest=answer.image.digest,
        width=answer.image.width,
        height=answer.image.height,
        results=[_result(result) for result in answer.results],
        cache=answer.cache,
        timing_ms=answer.timing_ms,
    )


def _body(message: pb.SegmentRequest, digest: str) -> dict[str, Any]:
    """The fields of the REST body that asks for the same."""
    body: dict[str, Any] = {
        "image": digest,
        "prompts": [_prompt(prompt) for prompt in message.prompts],
        "output": {"mask": "none" if message.omit_masks else "rle", "mask_ref": not message.omit_mask_refs},
    }
    if message.masks_only:
        if message.HasField("classify"):
            raise InvalidRequest("masks_only and classify exclude each other", pointer="/masks_only")
        body["classify"] = None
    elif message.HasField("classify"):
        body["classify"] = _classify(message.classify)
    return body


def _prompt(prompt: pb.Prompt) -> dict[str, Any]:
    box = prompt.box
    return {
        "id": prompt.id if prompt.HasField("id") else None,
        "points": [
            {"x": point.x, "y": point.y, "label": int(point.label != pb.POINT_LABEL_BACKGROUND)}
            for point in prompt.points
        ],
        "box": (box.x1, box.y1, box.x2, box.y2) if prompt.HasField("box") else None,
        "mask_ref": prompt.mask_ref if prompt.HasField("mask_ref") else None,
    }


def _classify(classify: pb.Classify) -> dict[str, Any]:
    fields: dict[str, Any] = {"min_score": classify.min_score}
    if classify.HasField("vocabulary"):
        fields["vocabulary"] = classify.vocabulary
    if classify.names:
        fields["names"] = list(classify.names)
    if classify.HasField("top_k"):
        fields["top_k"] = classify.top_k
    return fields


def _result(result: schemas.ResultOut) -> pb.Result:
    if result.error is not None:
        error = result.error
        return pb.Result(
            id=result.id, error=pb.Error(code=error.code, detail=error.detail, pointer=error.pointer or "")
        )
    message = pb.Result(id=result.id, mask_ref=result.mask_ref or "", area=result.area, stability=result.stability)
    if isinstance(result.mask, schemas.RleOut):
        height, width = result.mask.size
        message.mask.CopyFrom(pb.Mask(height=height, width=width, counts=result.mask.counts.encode()))
    if result.bbox is not None:
        x1, y1, x2, y2 = result.bbox
        message.box.CopyFrom(pb.Box(x1=x1, y1=y1, x2=x2, y2=y2))
    message.classes.extend(pb.ClassScore(name=found.name, score=found.score) for found in result.classes or ())
    return message
