"""Label Studio's tasks through the core: one object that was prompted, or all objects whose name is a label."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from service.core.everything import EverythingRules, segment_everything
from service.core.images import digest_of
from service.core.requests import Classify, PromptRequest, Segment, SegmentReply, SegmentRequest
from service.core.types import ClassScore, Size
from service.transports.label_studio_config import LabelConfig
from service.transports.label_studio_regions import (
    best_label,
    chosen_label,
    read_prompt,
    shape_renderer,
    write_regions,
)
from service.transports.label_studio_schemas import PromptRegion
from service.transports.services import Services

_RULES = EverythingRules(min_stability=0.5)  # loose, since masks without a label are dropped afterwards


@dataclass(frozen=True, slots=True)
class Annotation:
    """Regions of one task, and how sure their labels are."""

    regions: list[dict[str, Any]]
    score: float


async def annotate_prompted(
    ready: Services,
    content: bytes,
    *,
    tenant: str,
    config: LabelConfig,
    prompts: Sequence[PromptRegion],
    deadline: float,
) -> Annotation:
    """The object that was clicked or boxed; its name is looked for only when the user has not chosen one.

    The score is the label's probability, or the mask's stability when the label is the user's.
    """
    label = chosen_label(prompts, set(config.words.values()))
    request = await _request(content, config, tenant=tenant, names=None if label else tuple(config.words))
    opened = await ready.segmenter.open(request, deadline=deadline)
    size = opened.embedding.letterbox.original
    request = replace(request, prompts=[PromptRequest("0", read_prompt(prompts, size))])
    jobs = await ready.segmenter.predict(request, opened, deadline=deadline)
    found = (await ready.segmenter.describe(request, opened, jobs, deadline=deadline))[0]
    return _annotation([(found, label)], config, size, rotation=prompts[-1].image_rotation)


async def annotate_everything(
    ready: Services, content: bytes, *, tenant: str, config: LabelConfig, deadline: float
) -> Annotation:
    """Every object of the image whose name is a label.

    The labels alone would name everything, the sky too: they have to hold against the model's default vocabulary.
    """
    names = await batch_names(ready, config, tenant=tenant)
    request = await _request(content, config, tenant=tenant, names=names)
    request = replace(request, background=True)
    size, found = Size(0, 0), []
    async for item in segment_everything(ready.segmenter, request, rules=_RULES, deadline=deadline):
        if isinstance(item, SegmentReply):
            size = item.embedding.letterbox.original
        elif _is_named(item.classes or (), config):
            found.append((item, None))
    return _annotation(found, config, size)


async def batch_names(ready: Services, config: LabelConfig, *, tenant: str) -> tuple[str, ...]:
    """The words of the labels, and as their rivals the default vocabulary's names."""
    vocabulary = await ready.vocabularies.find(tenant, ready.vocabularies.default)
    return tuple(dict.fromkeys((*config.words, *vocabulary.names)))


def _is_named(classes: Sequence[ClassScore], config: LabelConfig) -> bool:
    """Whether a label is likelier than chance among all names (`classes` has every one): rivals may be synonyms."""
    return any(name in config.words and score * len(classes) >= 1 for name, score in classes)


async def _request(
    content: bytes, config: LabelConfig, *, tenant: str, names: tuple[str, ...] | None
) -> SegmentRequest:
    return SegmentRequest(
        tenant=tenant,
        digest=await asyncio.to_thread(digest_of, content),
        content=content,
        prompts=(),
        classify=Classify(names=names, top_k=len(names)) if names else None,
        render=shape_renderer(config),
        keep=False,
    )


def _annotation(
    found: Sequence[tuple[Segment, str | None]], config: LabelConfig, size: Size, *, rotation: int = 0
) -> Annotation:
    regions: list[dict[str, Any]] = []
    scores: list[float] = []
    for segment, chosen in found:
        if segment.area == 0 or not isinstance(segment.mask, dict):
            continue
        label, score = (chosen, segment.stability) if chosen else best_label(segment.classes or (), config.words)
        regions += write_regions(config, segment.mask, label=label, score=score, size=size, rotation=rotation)
        scores.append(score)
    return Annotation(regions, sum(scores) / len(scores) if scores else 0.0)
