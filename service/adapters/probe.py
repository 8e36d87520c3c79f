"""The smallest real inference of each model, for readiness: a server may say "ready" with a dead model (TRITON.md)."""

import numpy as np

from service.adapters.manifest import GraphSpec
from service.core.spec import ModelSpec
from service.core.types import Array


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
