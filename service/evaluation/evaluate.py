"""`ovsam evaluate`: measure a running service on annotated pictures."""

import argparse
import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from service.client.api import Client
from service.client.options import SegmentOptions
from service.client.parallel import in_threads
from service.evaluation.dataset import DataSet, InvalidDataSet, Picture, choose, read_dataset
from service.evaluation.measure import DetectedBox, Examiner
from service.evaluation.panel import Comparison
from service.evaluation.prompts import PromptRule, parse_rule
from service.evaluation.recognition import recogniser_figures
from service.evaluation.records import PictureRecord, RecordFile
from service.evaluation.report import write_report
from service.evaluation.splits import plain_name
from service.evaluation.summary import (
    cases_of,
    click_figures,
    confusions,
    group_figures,
    latency_figures,
    precision_figures,
)


def evaluate(options: argparse.Namespace, *, url: str, comparison: Comparison | None = None) -> int:
    """Measure, compare recognisers if asked, write and print; the exit status is 1 when something failed on the way."""
    rule = parse_rule(options.prompt)
    dataset = read_dataset(options.annotations, options.images)
    detections = _read_detections(options.detections) if options.detections else {}
    chosen = choose(dataset, splits=_words(options.split), limit=options.limit, detected=detections.keys())
    unknown = set(_words(options.apart)) - {category.name for category in dataset.categories.values()}
    if unknown or not chosen.targets():
        raise InvalidDataSet(f"no class is called {', '.join(sorted(unknown))}" if unknown else "no object to ask for")
    file = RecordFile(options.out, _asked(options))
    done = file.resume() if options.resume else []
    if not options.resume:
        file.start()
    failures: dict[Path, str] = {}
    with Client(url, timeout=600.0) as client:
        client.vocabularies()  # a service that is not there is told once, not for each picture
        examiner = Examiner(client, rule, _names(options, dataset), detections)
        left = [picture for picture in chosen.pictures if picture.id not in {record.id for record in done}]
        records = done + list(file.append(_measure(examiner, left, jobs=options.jobs, failures=failures)))
    report, cases = _report(options, chosen, records=records, rule=rule), cases_of(chosen, records)
    if comparison is not None:
        names, revision, apart = _names(options, dataset), report["revision"], _words(options.apart)
        figures = recogniser_figures(cases, comparison, options=names, revision=revision, apart=apart)
        report["recognisers"] = figures
    sys.stdout.write(write_report(options.out, report, cases))
    for path, reason in failures.items():
        sys.stderr.write(f"{path}: {reason}\n")
    return 1 if failures or report["failed"] else 0


def _measure(
    examiner: Examiner, pictures: Sequence[Picture], *, jobs: int, failures: dict[Path, str]
) -> Iterator[PictureRecord]:
    for picture, result in in_threads(examiner.measure, pictures, jobs=jobs, title="evaluate"):
        if isinstance(result, PictureRecord):
            yield result
        else:
            failures[picture.path] = str(result)


def _report(
    options: argparse.Namespace, dataset: DataSet, *, records: Sequence[PictureRecord], rule: PromptRule
) -> dict[str, Any]:
    revisions = {(record.model, record.revision) for record in records}
    if len(revisions) != 1:
        raise InvalidDataSet("the model changed during the run" if revisions else "no picture was answered")
    (model, revision) = revisions.pop()
    cases = cases_of(dataset, records)
    asked = _asked(options)
    return {
        "model": model,
        "revision": revision,
        "asked": {name: asked[name] for name in ("prompt", "vocabulary", "split", "limit")},
        "objects": len(cases),
        "pictures": len(records),
        "failed": sum(len(record.objects) for record in records) - len(cases),
        "groups": group_figures(cases, apart=_words(options.apart)),
        "clicks": click_figures(cases, clicks=rule.clicks, apart=_words(options.apart)),
        "confusions": confusions(cases),
        "average_precision": precision_figures(dataset, records) if options.detections else None,
        "recognisers": None,
        "latency_ms": latency_figures(records),
    }


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    """What the records of a run depend on, beside the service's model."""
    return {
        "annotations": hashlib.sha256(options.annotations.read_bytes()).hexdigest(),
        "detections": hashlib.sha256(options.detections.read_bytes()).hexdigest() if options.detections else None,
        "prompt": options.prompt,
        "vocabulary": options.vocabulary or "the file's classes",
        "split": options.split,
        "limit": options.limit,
    }


def _names(options: argparse.Namespace, dataset: DataSet) -> SegmentOptions:
    """A stored vocabulary, or the classes of the annotation file."""
    if options.vocabulary:
        return SegmentOptions(vocabulary=options.vocabulary)
    return SegmentOptions(names=[plain_name(category.name) for category in dataset.categories.values()])


def _read_detections(path: Path) -> Mapping[int, Sequence[DetectedBox]]:
    """COCO's results format, by picture."""
    boxes: dict[int, list[DetectedBox]] = defaultdict(list)
    try:
        for row in json.loads(path.read_text(encoding="utf-8")):
            x, y, width, height = row["bbox"]
            boxes[row["image_id"]].append(DetectedBox(row["category_id"], row["score"], (x, y, x + width, y + height)))
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidDataSet(f"{path} is no file of COCO results: {error!r}") from error
    return boxes


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()] if text else []
