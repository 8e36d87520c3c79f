"""What the service answers, as typed values with NumPy masks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from service.client.errors import RequestFailed
from service.client.masks import BoolArray, Polygon, Rle, decode_rle, find_polygons


class ClassScore(NamedTuple):
    """A name and its probability over the names asked for."""

    name: str
    score: float


class Box(NamedTuple):
    """x1, y1, x2, y2 in pixels of the image as displayed."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class SegmentedObject:
    """One object: its mask, names (best first), box, area in pixels, and `mask_ref` to refine it with further points.

    `error` says why this object's prompt has no answer, where others of the same request have one.
    """

    id: str
    rle: Rle | None
    classes: tuple[ClassScore, ...]
    box: Box | None
    area: int
    stability: float
    mask_ref: str | None
    error: RequestFailed | None

    @property
    def name(self) -> str | None:
        """The best name."""
        return self.classes[0].name if self.classes else None

    @property
    def score(self) -> float:
        """The best name's probability."""
        return self.classes[0].score if self.classes else 0.0

    @cached_property
    def mask(self) -> BoolArray:
        """The mask [H, W] of the image as displayed."""
        if self.rle is None:
            raise ValueError("no mask was asked for" if self.error is None else str(self.error))
        return decode_rle(self.rle)

    @cached_property
    def polygons(self) -> tuple[Polygon, ...]:
        """The mask's outlines along the edges of pixels, holes told apart."""
        return find_polygons(self.mask)


@dataclass(frozen=True, slots=True)
class Answer:
    """The objects of one request, with the image's digest and (height, width), and how the answer came about."""

    objects: tuple[SegmentedObject, ...]
    digest: str
    size: tuple[int, int]
    model: str
    revision: str
    cache: str
    timing_ms: Mapping[str, float]
    request_id: str

    def __iter__(self) -> Iterator[SegmentedObject]:
        return iter(self.objects)

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, index: int) -> SegmentedObject:
        return self.objects[index]


def parse_answer(fields: Mapping[str, Any]) -> Answer:
    """The answer to a segment request."""
    return Answer(
        objects=tuple(parse_object(result) for result in fields["results"]),
        digest=fields["image"]["digest"],
        size=(fields["image"]["height"], fields["image"]["width"]),
        model=fields["model"]["name"],
        revision=fields["model"]["revision"],
        cache=fields["cache"],
        timing_ms=fields["timing_ms"],
        request_id=fields["request_id"],
    )


def parse_object(fields: Mapping[str, Any]) -> SegmentedObject:
    """One prompt's result."""
    mask, box, error = fields["mask"], fields["bbox"], fields["error"]
    return SegmentedObject(
        id=fields["id"],
        rle=Rle((mask["size"][0], mask["size"][1]), mask["counts"]) if mask else None,
        classes=tuple(ClassScore(found["name"], found["score"]) for found in fields["classes"] or ()),
        box=Box(*box) if box else None,
        area=fields["area"],
        stability=fields["stability"],
        mask_ref=fields["mask_ref"],
        error=RequestFailed(error["detail"], code=error["code"], pointer=error["pointer"]) if error else None,
    )
