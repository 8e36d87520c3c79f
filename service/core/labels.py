"""Region embeddings against text embeddings: scores over a vocabulary (SPEC section 7, driven by the manifest)."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from service.core.spec import Recognition
from service.core.types import ClassScore, Float32Array, TextClassifier

_EXCLUDED = np.float32(-1000.0)
# Up to this many multiplications OpenBLAS reads a block as it lies; beyond, it copies the matrix first.
_BLOCK = 1_000_000
_FEW = range(2, 33)  # regions for which copying costs more than it brings; one is a vector, which needs no copy
_LARGE = 4_000_000  # numbers of a matrix that is worth a second thread: one core cannot read as fast as memory gives


def rank_classes(
    regions: Sequence[Float32Array],
    classifier: TextClassifier,
    *,
    recognition: Recognition,
    visibility: Float32Array,
) -> Float32Array:
    """Scores [N, K] of N objects over K classes.

    `regions` holds one or two [N, D] unit embeddings of each object, `visibility` [N] the weight of the second one.
    Scores are probabilities; with a background class (one more, of logit 0) they sum to less than one. Computed from
    log-softmax throughout: a probability that underflows would turn 0 * -inf into NaN.
    """
    count = len(classifier.names)
    similarity = similarities(np.concatenate(regions), classifier.embeddings)
    if len(classifier.embeddings) > count:
        similarity = np.maximum.reduceat(similarity, classifier.starts, axis=1)
    logits = np.zeros((len(regions), len(visibility), count + recognition.background), np.float32)
    scale = np.array(recognition.scale, np.float32)[:, None, None]
    np.multiply(similarity.reshape(len(regions), -1, count), scale, out=logits[..., :count])
    fused = _log_softmax(logits)[0]
    if len(logits) > 1:
        weight = classifier.second_weight
        if recognition.background:
            weight = np.append(weight, np.float32(recognition.base))
        fused += visibility[:, None] * weight * (logits[1] - fused)
    if classifier.excluded is not None:
        fused[:, :count][:, classifier.excluded] = _EXCLUDED
    return np.exp(_log_softmax(fused)[:, :count])


def top_classes(scores: Float32Array, names: Sequence[str], *, top_k: int, min_score: float) -> tuple[ClassScore, ...]:
    """The best `top_k` of one object's scores [K] that reach `min_score`, best first."""
    top_k = min(top_k, len(scores))
    least = max(min_score, float(np.partition(scores, len(scores) - top_k)[len(scores) - top_k]))
    chosen = np.flatnonzero(scores >= least)
    order = chosen[np.argsort(-scores[chosen], kind="stable")][:top_k]
    return tuple(ClassScore(names[k], float(scores[k])) for k in order)


def similarities(regions: Float32Array, embeddings: Float32Array) -> Float32Array:
    """Products [M, T] of M region embeddings with T text embeddings, which are read from memory once.

    22,000 text embeddings of width 768 are 67 MB, so for a click the time is that of reading them.
    """
    count, width = regions.shape
    if count not in _FEW:
        return regions @ embeddings.T
    result = np.empty((count, len(embeddings)), np.float32)
    columns = np.ascontiguousarray(regions.T)
    rows = max(_BLOCK // (count * width), 1)

    def fill(start: int, end: int) -> None:
        for first in range(start, end, rows):
            block = slice(first, min(first + rows, end))
            result[:, block] = (embeddings[block] @ columns).T

    if embeddings.size < _LARGE:
        fill(0, len(embeddings))
        return result
    half = len(embeddings) // 2
    with ThreadPoolExecutor(max_workers=1) as second:
        rest = second.submit(fill, half, len(embeddings))
        fill(0, half)
        rest.result()
    return result


def _log_softmax(logits: Float32Array) -> Float32Array:
    """Over the last axis, in place: with 22,000 classes copies cost a click more than the arithmetic."""
    logits -= logits.max(axis=-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return logits
