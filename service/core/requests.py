"""What is asked of the segmenter and what it answers, free of any wire format."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.core.errors import ServiceError
from service.core.timing import Timing
from service.core.types import BoolArray, Box, ClassScore, ImageEmbedding, Prompt, TextClassifier


@dataclass(frozen=True, slots=True)
class PromptLimits:
    """Limits of one request, and of the decoder's queue and batches."""

    prompts: int = 256
    points: int = 64
    batch: int = 16
    queue: int = 1024
    slots: int = 1
    seconds: float = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class PromptRequest:
    """One object asked for; `mask_ref` names an earlier answer to refine."""

    id: str
    prompt: Prompt
    mask_ref: str | None = None


@dataclass(frozen=True, slots=True)
class Classify:
    """Names wanted, over a vocabulary or over the request's own words; neither means the default vocabulary."""

    vocabulary: str | None = None
    names: tuple[str, ...] | None = None
    top_k: int = 5
    min_score: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class SegmentRequest:
    """Prompts on one image of a tenant. `render` turns each mask [H, W] into what the transport sends.

    Without `keep`, no mask is kept for refinement: what nobody will refine must not push out what somebody will.
    """

    tenant: str
    digest: str
    content: bytes | None
    prompts: Sequence[PromptRequest]
    classify: Classify | None
    render: Callable[[BoolArray], object] | None
    background: bool = False
    keep: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """One prompt's answer: the rendered mask, its box and area in the original frame, and names; or an error."""

    id: str
    mask: object = None
    mask_ref: str | None = None
    box: Box | None = None
    area: int = 0
    stability: float = 0.0
    classes: tuple[ClassScore, ...] | None = None
    error: ServiceError | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SegmentReply:
    """The answers in the order of the prompts, the embedding and classifier they came from, and the time they took."""

    embedding: ImageEmbedding
    timing: Timing
    classifier: TextClassifier | None = None
    segments: Sequence[Segment] = ()
