"""Region embeddings against text embeddings: scores over a vocabulary (SPEC section 7, driven by the manifest)."""

from collections.abc import Sequence

import numpy as np

from service.core.spec import Recognition
from service.core.types import ClassScore, Float32Array, TextClassifier

_EXCLUDED = np.float32(-1000.0)


def rank_classes(
    regions: Sequence[Float32Array],
    classifier: TextClassifier,
    *,
    recognition: Recognition,
    visibility: Float32Array,
) -> Float32Array:
    """Scores [N, K] of N objects over K classes.

    `regions` holds one or two [N, D] unit embeddings of each object, `visibility` [N] the weight of the second one.
    Scores are probabilities; with a background class they sum to less than one. Computed from log-softmax throughout:
    a probability that underflows would turn 0 * -inf into NaN.
    """
    count = len(classifier.names)
    similarity = np.concatenate(regions) @ classifier.embeddings.T
    if len(classifier.embeddings) > count:
        similarity = np.maximum.reduceat(similarity, classifier.starts, axis=1)
    parts = [
        _log_softmax(scale * part, background=recognition.background)
        for scale, part in zip(recognition.scale, np.split(similarity, len(regions)), strict=True)
    ]
    fused = parts[0]
    if len(parts) > 1:
        weight = classifier.second_weight
        if recognition.background:
            weight = np.append(weight, np.float32(recognition.base))
        share = visibility[:, None] * weight
        fused = (1 - share) * parts[0] + share * parts[1]
    if classifier.excluded is not None:
        fused[:, :count][:, classifier.excluded] = _EXCLUDED
    scores: Float32Array = np.exp(_log_softmax(fused, background=False)[:, :count])
    return scores


def top_classes(scores: Float32Array, names: Sequence[str], *, top_k: int, min_score: float) -> tuple[ClassScore, ...]:
    """The best `top_k` of one object's scores [K] that reach `min_score`, best first."""
    top_k = min(top_k, len(scores))
    least = max(min_score, float(np.partition(scores, len(scores) - top_k)[len(scores) - top_k]))
    chosen = np.flatnonzero(scores >= least)
    order = chosen[np.argsort(-scores[chosen], kind="stable")][:top_k]
    return tuple(ClassScore(names[k], float(scores[k])) for k in order)


def _log_softmax(logits: Float32Array, *, background: bool) -> Float32Array:
    """Over the last axis; with `background`, over one more class of logit 0."""
    if background:
        logits = np.pad(logits, ((0, 0), (0, 1)))
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: Float32Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
