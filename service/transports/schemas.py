"""The wire format of the REST interface; the only pydantic models besides the settings."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

_EXAMPLE_DIGEST = "sha256:" + "0" * 64
DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"

Digest = Annotated[str, Field(pattern=DIGEST_PATTERN, examples=[_EXAMPLE_DIGEST])]
VocabularyName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Strict(BaseModel):
    """Unknown fields are refused: a misspelt option must not pass in silence."""

    model_config = ConfigDict(extra="forbid")


class InlineImage(Strict):
    """An image within the request."""

    base64: str = Field(description="the image's bytes, base64")


class ImageUrl(Strict):
    """An image to fetch; refused unless the fetch policy allows its host."""

    url: str = Field(max_length=2048)


class PointIn(Strict):
    """A click in pixels of the image as displayed."""

    x: float
    y: float
    label: Literal[0, 1] = Field(1, description="1 foreground, 0 background")


class PromptIn(Strict):
    """What points at one object: points, a box, or both."""

    id: str | None = Field(None, max_length=200)
    points: list[PointIn] = Field(default_factory=list)
    box: tuple[float, float, float, float] | None = Field(None, description="[x1, y1, x2, y2] in pixels")
    mask_ref: str | None = Field(None, max_length=64, description="an earlier result's mask_ref, to refine it")


class ClassifyIn(Strict):
    """Names wanted: a stored vocabulary, or the request's own words; neither is the default vocabulary."""

    vocabulary: VocabularyName | None = None
    names: list[str] | None = None
    top_k: int = Field(5, ge=1, le=1000)
    min_score: float = Field(0.0, ge=0, le=1)


class OutputIn(Strict):
    """What each result holds."""

    mask: Literal["rle", "polygon", "png", "none"] = "rle"
    simplify: float = Field(0.0, ge=0, le=100, description="polygons: largest deviation in pixels")
    bbox: bool = True
    mask_ref: bool = Field(default=True, description="false: keep nothing to refine with, for previews")


class SegmentIn(Strict):
    """Body of POST /v1/segment."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "image": _EXAMPLE_DIGEST,
                    "prompts": [
                        {"id": "a", "points": [{"x": 812, "y": 440, "label": 1}]},
                        {"id": "b", "box": [100, 80, 420, 610]},
                    ],
                    "classify": {"names": ["forklift", "pallet"], "top_k": 5},
                    "output": {"mask": "rle"},
                }
            ]
        },
    )

    image: Digest | InlineImage | ImageUrl | None = Field(None, description="absent in multipart requests")
    prompts: list[PromptIn]
    classify: ClassifyIn | None = Field(ClassifyIn(), description="null: masks only")
    output: OutputIn = OutputIn()


class EverythingIn(Strict):
    """Body of POST /v1/segment/everything."""

    image: Digest | InlineImage | ImageUrl | None = None
    grid: int = Field(16, ge=1, le=64, description="points along the longer side")
    min_stability: float = Field(0.5, ge=0, le=1)
    min_area: float = Field(0.0005, ge=0, le=1, description="smallest mask, as a share of the image")
    overlap: float = Field(0.7, ge=0, le=1, description="masks with a larger IoU than this count as one object")
    classify: ClassifyIn | None = ClassifyIn()
    output: OutputIn = OutputIn()


class RleOut(BaseModel):
    """COCO's compressed RLE."""

    format: Literal["rle"] = "rle"
    size: tuple[int, int] = Field(description="[height, width]")
    counts: str


class RingOut(BaseModel):
    """A closed outline through pixel centres."""

    points: list[list[int]] = Field(description="[x, y] pairs")
    hole: bool


class PolygonOut(BaseModel):
    """Rings; a hole follows the outline it lies in."""

    format: Literal["polygon"] = "polygon"
    size: tuple[int, int]
    rings: list[RingOut]


class PngOut(BaseModel):
    """A 1-bit PNG, base64."""

    format: Literal["png"] = "png"
    size: tuple[int, int]
    base64: str


MaskOut = RleOut | PolygonOut | PngOut


class ClassOut(BaseModel):
    """A name and its probability over the vocabulary asked for."""

    name: str
    score: float


class ErrorItem(BaseModel):
    """What is wrong with one field."""

    pointer: str = Field(description="JSON pointer into the request")
    detail: str


class ResultError(BaseModel):
    """Why one prompt of a batch has no answer."""

    code: str
    detail: str
    pointer: str | None = None


class ResultOut(BaseModel):
    """One prompt's answer."""

    id: str
    mask: MaskOut | None = Field(None, discriminator="format")
    mask_ref: str | None = None
    bbox: tuple[float, float, float, float] | None = Field(None, description="[x1, y1, x2, y2], null when empty")
    area: int = 0
    stability: float = 0.0
    classes: list[ClassOut] | None = Field(None, description="best first; null when classify was null")
    error: ResultError | None = None


class ModelOut(BaseModel):
    """Which model answered."""

    name: str
    revision: str


class ImageOut(BaseModel):
    """Which image was meant."""

    digest: str
    width: int
    height: int


class SegmentOut(BaseModel):
    """Answer of POST /v1/segment."""

    request_id: str
    model: ModelOut
    image: ImageOut
    results: list[ResultOut]
    cache: Literal["memory", "redis", "miss", "coalesced"]
    timing_ms: dict[str, float]


class UploadOut(BaseModel):
    """Answer of POST /v1/images."""

    image: str
    width: int | None = Field(None, description="null while the embedding is pending")
    height: int | None = None
    embedding: Literal["ready", "pending"]


class ModelCard(BaseModel):
    """The model served."""

    name: str
    revision: str
    precision: str
    licence: str
    input_size: int
    default_vocabulary: str
    quality: dict[str, object]


class ModelsOut(BaseModel):
    """Answer of GET /v1/models."""

    models: list[ModelCard]


class VocabularyIn(Strict):
    """Body of PUT /v1/vocabularies/{name}."""

    names: list[str]
    templates: list[str] | None = Field(None, max_length=64, description="each with one {}; null: the model's own")


class VocabularyOut(BaseModel):
    """A vocabulary."""

    name: str
    title: str
    licence: str
    source: str
    size: int
    names: list[str]


class VocabulariesOut(BaseModel):
    """Answer of GET /v1/vocabularies."""

    default: str
    vocabularies: list[str]


class Health(BaseModel):
    """Answer of /healthz and /readyz."""

    status: Literal["alive", "ready"]


class Problem(BaseModel):
    """application/problem+json (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[ErrorItem] = Field(default_factory=list)
