"""The smallest real inference of each model, for readiness: a server may say "ready" with a dead model (TRITON.md)."""

import time
from collections.abc import Callable

import numpy as np

from service.adapters.manifest import GraphSpec
from service.core.spec import ModelName, ModelSpec
from service.core.types import Array

_FRESH_SECONDS = 2.0
_SHARE = 10  # a probe is repeated after ten times the seconds it takes: readiness must not become the load
_FIRST_SECONDS, _LEAST_SECONDS = 120.0, 4.0


class ProbeRecord:
    """When each model answered last, and how long its probe takes: the full image encoder takes seconds on a CPU."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answered: dict[ModelName, float] = {}
        self._seconds: dict[ModelName, float] = {}

    def answered(self, model: ModelName) -> None:
        """A call of the model, anybody's, was answered just now."""
        self._answered[model] = self._clock()

    def failed(self, model: ModelName) -> None:
        """A call of the model failed: the next probe is due at once."""
        self._answered.pop(model, None)

    def took(self, model: ModelName, seconds: float) -> None:
        """Keep the seconds of a probe that was answered."""
        self._seconds[model] = seconds

    def fresh(self, model: ModelName) -> bool:
        """Whether the model answered so lately that a probe would tell nothing new."""
        if model not in self._answered:
            return False
        span = max(_FRESH_SECONDS, _SHARE * self._seconds.get(model, 0.0))
        return self._clock() - self._answered[model] < span

    def limit(self, model: ModelName) -> float:
        """Seconds that a probe may take: many for the first one, later a multiple of what it took before."""
        if model not in self._seconds:
            return _FIRST_SECONDS
        return max(_LEAST_SECONDS, _SHARE * self._seconds[model])


def probe_inputs(graph: GraphSpec, spec: ModelSpec) -> dict[str, Array]:
    """Zeros of one batch entry; a free axis has one element, or one tile where the tensor is read by tiles."""
    inputs: dict[str, Array] = {}
    for name, tensor in graph.inputs.items():
        free = spec.windows[name].tile if name in spec.windows else 1
        shape = [1] + [free if side == -1 else side for side in tensor.shape[1:]]
        inputs[name] = np.zeros(shape, dtype=tensor.type)
    if "point_labels" in inputs:
        inputs["point_labels"] = np.ones_like(inputs["point_labels"])
    return inputs
