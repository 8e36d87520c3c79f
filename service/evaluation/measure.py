"""Ask a running service for every object of a picture, as a user would, and hold the answers against the annotation."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from service.client.answers import Answer, SegmentedObject
from service.client.api import Client
from service.client.options import Prompt, SegmentOptions
from service.evaluation.dataset import Box, InvalidDataSet, Picture, Target, clip_box
from service.evaluation.metrics import boundary_iou, iou
from service.evaluation.prompts import PromptRule, corrective_click, empty_mask
from service.evaluation.records import DetectionRecord, ObjectRecord, PictureRecord, Step, shown
from service.evaluation.splits import plain_name

_NAMES = 5  # names asked for, for top-5
_BOXES = 64  # detections in a request


@dataclass(frozen=True, slots=True)
class DetectedBox:
    """A detection that is given: its box is the prompt, its class and score stay its own."""

    category: int
    score: float
    box: Box


@dataclass(frozen=True, slots=True)
class Examiner:
    """Measures pictures through one client; `names` says which names the service may choose from."""

    client: Client
    rule: PromptRule
    names: SegmentOptions
    detections: Mapping[int, Sequence[DetectedBox]]

    def measure(self, picture: Picture) -> PictureRecord:
        """One request for each prompt, so that each latency is that of a click."""
        start = time.perf_counter()
        upload = self.client.upload(picture.path)
        uploaded = time.perf_counter() - start
        objects, answers = [], []
        for target in picture.targets:
            record, answer = self._measure_object(upload.digest, target)
            objects.append(record)
            answers.append(answer)
        detections, answered = self._detections(upload.digest, picture)
        last = (answers + answered)[-1]
        first = next((uploaded + item.steps[0].seconds for item in objects[:1] if item.steps), None)
        return PictureRecord(
            id=picture.id,
            model=last.model,
            revision=last.revision,
            first_seconds=None if upload.known else first,
            objects=tuple(objects),
            detections=tuple(detections),
        )

    def _measure_object(self, digest: str, target: Target) -> tuple[ObjectRecord, Answer]:
        truth = target.mask()
        prompt = self.rule.first(target)
        steps: list[Step] = []
        while True:
            start = time.perf_counter()
            answer = self.client.segment(digest, **self._options([prompt]))
            seconds = time.perf_counter() - start
            found = answer[0]
            if found.error is not None:
                return _record(target, prompt, steps, found), answer
            mask = found.mask if found.rle is not None else empty_mask(target)
            if mask.shape != truth.shape:
                raise InvalidDataSet(
                    f"object {target.id} is annotated on {truth.shape}, its picture has {mask.shape} pixels"
                )
            names = tuple(plain_name(item.name) for item in found.classes)
            steps.append(Step(round(iou(mask, truth), 6), round(boundary_iou(mask, truth), 6), names, seconds))
            click = corrective_click(mask, truth) if len(steps) < self.rule.clicks else None
            if click is None:
                return _record(target, prompt, steps, found), answer
            prompt = replace(prompt, points=[*prompt.points, click], mask_ref=found.mask_ref)

    def _detections(self, digest: str, picture: Picture) -> tuple[list[DetectionRecord], list[Answer]]:
        """A box that the service refuses, as one without any area, counts as not detected."""
        boxes = self.detections.get(picture.id, ())
        records, answers = [], []
        for start in range(0, len(boxes), _BOXES):
            chunk = boxes[start : start + _BOXES]
            clipped = [clip_box(item.box, picture.size) for item in chunk]
            answer = self.client.segment(digest, boxes=clipped, classify=False)
            answers.append(answer)
            records += [
                DetectionRecord(item.category, item.score, found.rle.size, found.rle.counts)
                for item, found in zip(chunk, answer, strict=True)
                if found.rle is not None
            ]
        return records, answers

    def _options(self, prompts: list[Prompt]) -> SegmentOptions:
        return {**self.names, "prompts": prompts, "top_k": _NAMES}


def _record(target: Target, prompt: Prompt, steps: list[Step], found: SegmentedObject) -> ObjectRecord:
    points, box = shown(prompt)
    return ObjectRecord(
        id=target.id,
        steps=tuple(steps),
        points=points,
        box=box,
        size=found.rle.size if found.rle is not None else target.size,
        counts=found.rle.counts if found.rle is not None else None,
        error=str(found.error) if found.error is not None else None,
    )
