"""`ovsam compare`: hold two services, or two model repositories, against each other on the same prompts."""

import argparse
import sys
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from service.client.answers import Answer, SegmentedObject
from service.client.api import Client
from service.client.images import find_images
from service.client.options import Prompt, SegmentOptions
from service.client.parallel import in_threads
from service.evaluation.comparison import Pair, Question, Tolerance, comparison, write_comparison
from service.evaluation.generated import generate
from service.evaluation.metrics import iou
from service.evaluation.server import NoServer, check_target, served

__all__ = ["NoServer", "compare"]
_GENERATED = 8  # pictures, when none are given


def compare(options: argparse.Namespace) -> int:
    """Ask both, write and print; the exit status is 0 only within the tolerance."""
    for target in (options.a, options.b):
        check_target(target)
    questions = _questions(options)
    answers, models = [], []
    for target in (options.a, options.b):  # one after the other: two large models may not fit in memory together
        with served(target) as url:
            found = _ask(url, questions, vocabulary=options.vocabulary, title=f"ask {target}")
        answers.append(found)
        models.append({"asked": target, "model": found[0].model, "revision": found[0].revision})
    pairs = [
        Pair(question, prompt, one, other, overlap(one, other))
        for question, first, second in zip(questions, *answers, strict=True)
        for prompt, one, other in zip(question.prompts, first, second, strict=True)
    ]
    tolerance = Tolerance(mask_iou=options.min_iou, label_agreement=options.min_agreement)
    report = comparison(pairs, models=models, tolerance=tolerance)
    sys.stdout.write(write_comparison(options.out, report, pairs))
    return 0 if report["within_tolerance"] else 1


def _questions(options: argparse.Namespace) -> list[Question]:
    if options.images is None:
        pictures = [(f"generated-{number}.png", generate(number)) for number in range(min(_GENERATED, options.limit))]
    else:
        pictures = [(path.name, path.read_bytes()) for path in find_images(options.images)[: options.limit]]
    if not pictures:
        raise NoServer(f"{options.images} holds no pictures")
    questions = []
    for name, content in pictures:
        bare = Question(name, content, ())
        height, width = bare.pixels().shape[:2]
        questions.append(Question(name, content, _prompts(height, width, grid=options.grid)))
    return questions


def _prompts(height: int, width: int, *, grid: int) -> tuple[Prompt, ...]:
    """A click at the middle of each cell of a grid, and each cell as a box."""
    across, down = np.linspace(0, width, grid + 1), np.linspace(0, height, grid + 1)
    boxes = [(x1, y1, x2, y2) for y1, y2 in pairwise(down) for x1, x2 in pairwise(across)]
    clicks = [Prompt(points=[((x1 + x2) / 2, (y1 + y2) / 2, 1)]) for x1, y1, x2, y2 in boxes]
    return (*clicks, *(Prompt(box=box) for box in boxes))


def _ask(url: str, questions: Sequence[Question], *, vocabulary: str | None, title: str) -> list[Answer]:
    def ask(client: Client, question: Question) -> Answer:
        options = SegmentOptions(prompts=question.prompts, top_k=1)
        if vocabulary:
            options["vocabulary"] = vocabulary
        return client.segment(question.content, **options)

    answers = []
    with Client(url, timeout=600.0) as client:
        for _, answer in in_threads(lambda question: ask(client, question), questions, jobs=1, title=title):
            if not isinstance(answer, Answer):
                raise answer
            answers.append(answer)
    return answers


def overlap(one: SegmentedObject, other: SegmentedObject) -> float:
    """IoU of two masks; a prompt that failed on one side only has none in common."""
    if one.rle is None or other.rle is None:
        return 1.0 if one.rle is other.rle else 0.0
    return 1.0 if one.rle == other.rle else iou(one.mask, other.mask)
