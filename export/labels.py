"""Class scores from region and text embeddings in NumPy: the manifest's fusion, for checks and figures."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
EXCLUDED = -1000.0


@dataclass(frozen=True, slots=True)
class Classifier:
    """Text embeddings [K,P,D] of K classes and the weight of the second embedding, NaN where a class is excluded."""

    embeddings: Float32Array
    second_weight: Float64Array
    scale: float = 100.003

    def logits(self, regions: Float32Array) -> Float32Array:
        """Unit region embeddings [N,D] -> [N,K+1], the background's 0 last."""
        classes, synonyms, dim = self.embeddings.shape
        products = (regions @ self.embeddings.reshape(-1, dim).T).reshape(-1, classes, synonyms)
        best = self.scale * products.max(2)
        return np.concatenate([best, np.zeros((len(best), 1), np.float32)], axis=1)

    def fuse(self, first: Float32Array, second: Float32Array, visibility: Float32Array) -> Float64Array:
        """Two sets of logits [N,K+1] and visibility [N] -> log scores [N,K+1], computed in log space throughout."""
        weight = np.nan_to_num(self.second_weight) * visibility[:, None]
        fused: Float64Array = (1 - weight) * log_softmax(first) + weight * log_softmax(second)
        fused[:, np.isnan(self.second_weight)] = EXCLUDED
        return fused


def second_weights(classes: int, base: list[int], novel: list[int]) -> Float64Array:
    """Weight of the second embedding for K classes and background: base and background 0.1, novel 0.9, else NaN."""
    weights = np.full(classes + 1, np.nan)
    weights[[*base, classes]] = 0.1
    weights[novel] = 0.9
    return weights


def log_softmax(x: NDArray[np.floating]) -> Float64Array:
    """Over the last axis, float64."""
    shifted = x.astype(np.float64) - x.max(-1, keepdims=True)
    logs: Float64Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return logs
