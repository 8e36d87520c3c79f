"""The use case: an image and prompts in, masks and names out.

One request, top to bottom: open the image's embedding -> check the prompts -> decode masks -> encode and rank regions
-> render. Each step is one method; the request's deadline stands around all of them.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from service.core.batcher import Batcher, BatchLimits
from service.core.bundles import region_parts, windows_for
from service.core.embedder import Embedder, masks_key
from service.core.errors import InvalidPrompt, UnknownImage
from service.core.inference import decode_prompts, encode_regions
from service.core.labels import rank_classes, top_classes
from service.core.masks import mask_box, restore_mask, stability
from service.core.ports import EmbeddingCache, ModelBackend, Observer
from service.core.prompts import check_prompt
from service.core.requests import PromptLimits, Segment, SegmentReply, SegmentRequest
from service.core.spec import ModelSpec
from service.core.timing import Timing, before
from service.core.types import (
    ClassScore,
    Float32Array,
    ImageEmbedding,
    ImageKey,
    MaskPrediction,
    Prompt,
    TextClassifier,
)
from service.core.vocabularies import Vocabularies

_REFERENCES = 64  # masks kept for refinement per image: bounds what clicking can store
_INLINE_SCORES = 4096  # a ranking smaller than this is quicker than the way to a thread


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A prompt, and later its mask, on the way through a batcher."""

    embedding: ImageEmbedding
    prompt: Prompt
    deadline: float
    prediction: MaskPrediction | None = None


class Segmenter:
    """Answers requests; holds no state of its own but the two queues."""

    def __init__(
        self,
        *,
        backend: ModelBackend,
        embedder: Embedder,
        cache: EmbeddingCache,
        vocabularies: Vocabularies,
        observer: Observer,
        limits: PromptLimits,
    ) -> None:
        self._backend = backend
        self._embedder = embedder
        self._cache = cache
        self._vocabularies = vocabularies
        self._observer = observer
        self.limits = limits
        bounds = BatchLimits(batch=limits.batch, queue=limits.queue, slots=limits.slots, seconds=limits.seconds)
        self._masks: Batcher[str, Job, MaskPrediction] = Batcher(
            "prompt_decoder", self._run_masks, limits=bounds, observer=observer
        )
        self._regions: Batcher[str, Job, tuple[Float32Array, ...]] = Batcher(
            "region_encoder", self._run_regions, limits=bounds, observer=observer
        )

    @property
    def spec(self) -> ModelSpec:
        """The manifest of the model that answers."""
        return self._backend.spec

    async def segment(self, request: SegmentRequest, *, deadline: float) -> SegmentReply:
        """Answer before `deadline` (of `time.monotonic`), or raise one error for the whole request."""
        async with before(deadline):
            opened = await self.open(request, deadline=deadline)
            jobs, errors = await self._check(request, opened.embedding, deadline)
            jobs = await self._decode(jobs, request, opened.timing)
            segments = errors | await self._describe(jobs, request, opened)
        return _in_order(opened, segments)

    async def segment_in_stages(self, request: SegmentRequest, *, deadline: float) -> AsyncIterator[SegmentReply]:
        """The reply as soon as the masks are there, then once more with the names, when any are wanted."""
        unnamed = replace(request, classify=None)
        async with before(deadline):
            opened = await self.open(unnamed, deadline=deadline)
            jobs, errors = await self._check(unnamed, opened.embedding, deadline)
            jobs = await self._decode(jobs, unnamed, opened.timing)
            described = await self._describe(jobs, unnamed, opened)
        yield _in_order(opened, errors | described)
        if request.classify is not None:
            async with before(deadline):
                with opened.timing.stage("label"):
                    opened = replace(opened, classifier=await self._classifier(request, deadline))
                names = await self._classify(jobs, request, opened)
            named = {index: replace(segment, classes=names.get(index, ())) for index, segment in described.items()}
            yield _in_order(opened, errors | named)

    async def open(self, request: SegmentRequest, *, deadline: float) -> SegmentReply:
        """The embedding and the classifier that a request needs, in a reply without segments yet."""
        timing = Timing(self._observer)
        async with before(deadline):
            with timing.stage("label"):
                classifier = await self._classifier(request, deadline)
            embedding = await self._embedder.open(self.key(request), request.content, timing=timing)
        return SegmentReply(embedding=embedding, classifier=classifier, timing=timing)

    async def predict(self, request: SegmentRequest, opened: SegmentReply, *, deadline: float) -> dict[int, Job]:
        """Masks alone, for callers that choose among them before they ask for names."""
        async with before(deadline):
            jobs, _ = await self._check(request, opened.embedding, deadline)
            return await self._decode(jobs, request, opened.timing)

    async def describe(
        self, request: SegmentRequest, opened: SegmentReply, jobs: dict[int, Job], *, deadline: float
    ) -> dict[int, Segment]:
        """Names and rendered masks of what `predict` gave."""
        async with before(deadline):
            return await self._describe(jobs, request, opened)

    async def embed(self, key: ImageKey, content: bytes, *, deadline: float) -> ImageEmbedding:
        """Encode an image unless its embedding is kept; no prompt is asked."""
        timing = Timing(self._observer)
        async with before(deadline):
            return await self._embedder.open(key, content, timing=timing)

    def key(self, request: SegmentRequest) -> ImageKey:
        """The cache key of a request's image."""
        return self._embedder.key(request.tenant, request.digest)

    async def close(self) -> None:
        """Wait for the calls in hand."""
        await self._masks.close()
        await self._regions.close()

    async def _classifier(self, request: SegmentRequest, deadline: float) -> TextClassifier | None:
        classify = request.classify
        if classify is None:
            return None
        patience = max(0.0, deadline - time.monotonic() - 1.0)
        if classify.names is not None:
            return await self._vocabularies.classifier_of(classify.names, timeout=patience)
        name = classify.vocabulary or self._vocabularies.default
        return await self._vocabularies.classifier(request.tenant, name, timeout=patience)

    async def _check(
        self, request: SegmentRequest, embedding: ImageEmbedding, deadline: float
    ) -> tuple[dict[int, Job], dict[int, Segment]]:
        """Jobs of the good prompts and answers of the bad ones, by position; raises when no prompt is good."""
        if not 1 <= len(request.prompts) <= self.limits.prompts:
            raise InvalidPrompt(
                f"a request needs 1 to {self.limits.prompts} prompts, not {len(request.prompts)}", pointer="/prompts"
            )
        jobs, errors = {}, {}
        size = embedding.letterbox.original
        for index, wanted in enumerate(request.prompts):
            try:
                prompt = check_prompt(wanted.prompt, image=size, max_points=self.limits.points)
                if wanted.mask_ref is not None:
                    prompt = replace(prompt, mask_input=await self._recall(embedding.key, wanted.mask_ref))
                jobs[index] = Job(embedding, prompt, deadline)
            except InvalidPrompt as error:
                error.pointer = f"/prompts/{index}{error.pointer or ''}"
                errors[index] = Segment(id=wanted.id, error=error)
        if not jobs:
            first = next(iter(errors.values())).error
            raise first if first is not None else InvalidPrompt("no prompt can be used")
        return jobs, errors

    async def _decode(self, jobs: dict[int, Job], request: SegmentRequest, timing: Timing) -> dict[int, Job]:
        """The jobs with their masks."""
        key = self.key(request).text
        with timing.stage("decode"):
            predictions, waited = await self._masks.submit(key, list(jobs.values()), background=request.background)
            timing.waited(waited)
        pairs = zip(jobs.items(), predictions, strict=True)
        return {index: replace(job, prediction=prediction) for (index, job), prediction in pairs}

    async def _describe(
        self, jobs: dict[int, Job], request: SegmentRequest, opened: SegmentReply
    ) -> dict[int, Segment]:
        classes = await self._classify(jobs, request, opened)
        with opened.timing.stage("render"):
            return await self._render(jobs, classes, request, opened.embedding)

    async def _classify(
        self, jobs: dict[int, Job], request: SegmentRequest, opened: SegmentReply
    ) -> dict[int, tuple[ClassScore, ...]]:
        """The best names of each mask that is not empty."""
        classify, classifier, timing = request.classify, opened.classifier, opened.timing
        full = {index: job for index, job in jobs.items() if job.prediction and not job.prediction.empty}
        if classify is None or classifier is None or not full:
            return {}
        with timing.stage("label"):
            regions, waited = await self._encode_regions(list(full.values()), request)
            timing.waited(waited)
            visibility = np.array([job.prediction.visibility for job in full.values() if job.prediction], np.float32)

            def rank() -> list[tuple[ClassScore, ...]]:
                stacked = [np.stack(rows) for rows in zip(*regions, strict=True)]
                recognition = self._backend.spec.recognition
                table = rank_classes(stacked, classifier, recognition=recognition, visibility=visibility)
                return [
                    top_classes(scores, classifier.names, top_k=classify.top_k, min_score=classify.min_score)
                    for scores in table
                ]

            small = len(full) * len(classifier.names) <= _INLINE_SCORES
            ranked = rank() if small else await asyncio.to_thread(rank)
        return dict(zip(full, ranked, strict=True))

    async def _encode_regions(
        self, jobs: list[Job], request: SegmentRequest
    ) -> tuple[list[tuple[Float32Array, ...]], float]:
        """Region embeddings; when the cache has dropped what they need and the image is at hand, it is encoded anew."""
        key = self.key(request)
        try:
            return await self._regions.submit(key.text, jobs, background=request.background)
        except UnknownImage:
            if request.content is None:
                raise
        embedding = await self._embedder.encode(key, request.content)
        jobs = [replace(job, embedding=embedding) for job in jobs]
        return await self._regions.submit(key.text, jobs, background=request.background)

    async def _render(
        self,
        jobs: dict[int, Job],
        classes: dict[int, tuple[ClassScore, ...]],
        request: SegmentRequest,
        embedding: ImageEmbedding,
    ) -> dict[int, Segment]:
        """Masks in the original frame, rendered in threads, and kept for refinement when asked to."""

        def render(index: int, prediction: MaskPrediction) -> Segment:
            mask = restore_mask(prediction.logits, embedding.letterbox, input_size=self._backend.spec.input_size)
            box = mask_box(mask)
            names = classes.get(index, ()) if request.classify else None
            return Segment(
                id=request.prompts[index].id,
                mask=request.render(mask) if request.render else None,
                box=box,
                area=int(np.count_nonzero(mask)),
                stability=stability(prediction.logits),
                classes=names,
            )

        predictions = {index: job.prediction for index, job in jobs.items() if job.prediction}
        rendered = await asyncio.gather(
            *(asyncio.to_thread(render, index, prediction) for index, prediction in predictions.items())
        )
        if not request.keep:
            return dict(zip(predictions, rendered, strict=True))
        references = await self._remember(embedding.key, list(predictions.values()))
        return {
            index: replace(segment, mask_ref=reference)
            for index, segment, reference in zip(predictions, rendered, references, strict=True)
        }

    async def _remember(self, key: ImageKey, predictions: Sequence[MaskPrediction]) -> list[str]:
        """Keep low-res logits beside the embedding; a reference is a slot of a ring and a nonce."""
        references, parts = [], {}
        for prediction in predictions:
            slot, nonce = secrets.randbelow(_REFERENCES), secrets.randbits(63)
            logits = np.clip(prediction.logits, -60000, 60000).astype(np.float16)
            parts[f"{slot:02x}"] = {"logits": logits, "nonce": np.array([nonce])}
            references.append(f"{slot:02x}{nonce:016x}")
        await self._cache.put(masks_key(key), parts)
        return references

    async def _recall(self, key: ImageKey, reference: str) -> Float32Array:
        """The logits that a reference names; raises InvalidPrompt when they are no longer kept."""
        found = await self._cache.get(masks_key(key), [reference[:2]])
        if reference[:2] in found:
            part, _ = found[reference[:2]]
            if f"{int(part['nonce'][0]):016x}" == reference[2:]:
                return part["logits"].astype(np.float32)
        raise InvalidPrompt("this mask_ref is not kept (any more); send the prompt without it", pointer="/mask_ref")

    async def _run_masks(self, _: str, jobs: Sequence[Job]) -> list[MaskPrediction]:
        part = jobs[0].embedding.parts["mask"]
        return await decode_prompts(self._backend, part, [job.prompt for job in jobs], timeout=_budget(jobs))

    async def _run_regions(self, _: str, jobs: Sequence[Job]) -> list[tuple[Float32Array, ...]]:
        predictions = [job.prediction for job in jobs if job.prediction]
        windows = windows_for([prediction.box for prediction in predictions], spec=self._backend.spec)
        parts = await self._embedder.region_parts(jobs[0].embedding, region_parts(windows))
        return await encode_regions(self._backend, parts, windows, predictions, timeout=_budget(jobs))


def _in_order(opened: SegmentReply, segments: dict[int, Segment]) -> SegmentReply:
    """The reply with its segments in the order of the prompts."""
    return replace(opened, segments=[segments[index] for index in range(len(segments))])


def _budget(jobs: Sequence[Job]) -> float:
    """Seconds that the most patient caller of a batch has left."""
    return max(0.001, max(job.deadline for job in jobs) - time.monotonic())
