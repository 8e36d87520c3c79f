"""What CVAT sends to a Nuclio function; fields that it adds for others are skipped."""

from typing import Annotated

from pydantic import BaseModel, Field, FiniteFloat

Pair = Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)]


class ImageIn(BaseModel):
    """A frame, as base64 without a `data:` prefix."""

    image: str = Field(min_length=1)


class InteractorIn(ImageIn):
    """A call of the interactor: clicks, and the two corners of a box where one was drawn; all in pixels."""

    pos_points: list[Pair] | None = None
    neg_points: list[Pair] | None = None
    obj_bbox: Annotated[list[Pair], Field(max_length=2)] | None = None


class DetectorIn(ImageIn):
    """A call of the detector."""

    threshold: FiniteFloat | None = None
