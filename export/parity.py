"""How far an exported graph is from the network it came from, and the gate that keeps a drifting graph unpublished."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.graphs import GraphSpec
from export.network.region_head import mask_boxes

Array = NDArray[Any]
# Largest error relative to the output's standard deviation, by the precision of the export.
_RELATIVE_LIMIT = {"float32": 5e-3, "float16": 0.1}
# Largest difference of a stored code: float32 may round the other way; of millions of float16 values one may be far.
_CODE_LIMIT = {"float32": 1, "float16": None}
# Error of stored maps as a multiple of what storing them costs. The reference kept every final label with maps in six
# bits (SPEC section 13), whose steps are 255 / 63 times wider.
_STORAGE_LIMIT = {"float32": 1, "float16": 255 / 63}
_STORED = ("_scale", "_offset")


class DriftError(Exception):
    """An exported graph differs from the network by more than the stated tolerance."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured difference and the most (with `at_least`, the least) it may be; without a limit it only informs."""

    name: str
    value: float
    limit: float | None = None
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the figure is within its limit; a NaN never is."""
        if self.limit is None:
            return True
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def table(figures: Iterable[Figure]) -> str:
    """The figures as aligned text, one per line."""
    lines = [f"{'figure':<58} {'value':>11}   {'limit':>10}"]
    for figure in figures:
        limit = "" if figure.limit is None else f"{'>=' if figure.at_least else '<='} {figure.limit:.4g}"
        mark = "" if figure.limit is None else ("ok" if figure.holds else "DRIFT")
        lines.append(f"{figure.name:<58} {figure.value:>11.5g}   {limit:>10}  {mark}".rstrip())
    return "\n".join(lines)


class Runner:
    """An ONNX Runtime session on the CPU that answers by output name."""

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # a converted float16 graph is full of casts; the runtime's remarks on them help nobody
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs for inputs by name."""
        return dict(zip(self.outputs, self._session.run(self.outputs, dict(inputs)), strict=True))


def gate_inputs(spec: GraphSpec) -> dict[str, Tensor]:
    """The spec's generated inputs for one image, so that the largest graph needs one pass."""
    return {name: tensor[:1] for name, tensor in spec.inputs.items()}


@torch.inference_mode()
def network_outputs(spec: GraphSpec) -> dict[str, Array]:
    """What the torch network answers to the gate's inputs."""
    module: nn.Module = spec.module
    answer = module(*gate_inputs(spec).values())
    tensors = answer if isinstance(answer, tuple) else (answer,)
    return {name: tensor.numpy() for name, tensor in zip(spec.outputs, tensors, strict=True)}


def compare_graph(spec: GraphSpec, path: Path, *, expected: Mapping[str, Array], precision: str) -> list[Figure]:
    """Figures of the exported graph at `path` against the network's answer to the same inputs."""
    answer = Runner(path)({name: tensor.numpy() for name, tensor in gate_inputs(spec).items()})
    figures = []
    for name in expected:
        whole = f"{spec.name}.{name}"
        _require_same_kind(whole, answer[name], expected[name])
        if name == "boxes":
            figures.append(own_boxes(answer))
        elif f"{name}_scale" in expected:
            figures += _compare_stored(whole, answer, expected, name=name, precision=precision)
        elif not name.endswith(_STORED):
            figures.append(_compare(whole, answer[name], expected[name], precision))
    return figures


def restore(bundle: Mapping[str, Array], name: str, pick: tuple[Any, ...]) -> tuple[Array, Array]:
    """The picked values of a stored tensor [B,C,H,W] and the step of its storage at each of them."""
    stored = bundle[name]
    if stored.dtype != np.uint8:
        values = stored[pick].astype(np.float32)
        return values, np.spacing(np.abs(stored[pick]).astype(np.float16)).astype(np.float32)
    channels = (*pick[:2], None, None)
    scale, offset = bundle[f"{name}_scale"][channels], bundle[f"{name}_offset"][channels]
    values = stored[pick].astype(np.float32) * scale + offset
    return values, np.broadcast_to(scale, values.shape).astype(np.float32)


def require_parity(figures: Iterable[Figure]) -> None:
    """Raise DriftError when a figure is beyond its limit."""
    drifting = [figure for figure in figures if not figure.holds]
    if drifting:
        raise DriftError(f"the exported graphs drift; nothing was published\n{table(drifting)}")


def _require_same_kind(name: str, found: Array, expected: Array) -> None:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise DriftError(f"{name}: {found.dtype} {found.shape}, the network gives {expected.dtype} {expected.shape}")


def _compare(name: str, found: Array, expected: Array, precision: str) -> Figure:
    difference = float(np.abs(found.astype(np.float32) - expected.astype(np.float32)).max())
    spread = max(float(expected.astype(np.float32).std()), 1e-6)
    return Figure(f"{name}: largest error / std", difference / spread, _RELATIVE_LIMIT[precision])


def _compare_stored(
    whole: str, answer: Mapping[str, Array], expected: Mapping[str, Array], *, name: str, precision: str
) -> list[Figure]:
    """A map as codes, and as the values that codes, scales and offsets stand for."""
    codes = np.abs(answer[name].astype(np.int16) - expected[name]).max()
    found, _ = restore(answer, name, np.s_[:, :])
    wanted, step = restore(expected, name, np.s_[:, :])
    ratio = float(np.sqrt(np.square(found - wanted).mean() / (np.square(step).mean() / 12)))
    return [
        Figure(f"{whole}: largest difference of a code", float(codes), _CODE_LIMIT[precision]),
        Figure(f"{whole}: error / that of its storage (RMS)", ratio, _STORAGE_LIMIT[precision]),
    ]


def own_boxes(answer: Mapping[str, Array]) -> Figure:
    """A border pixel may flip between runtimes and move a box, so boxes are held against the graph's own masks."""
    own = mask_boxes(torch.from_numpy(answer["mask_logits"])).numpy()
    difference = float(np.abs(own - answer["boxes"].astype(np.float32)).max())
    return Figure("prompt_decoder.boxes: largest difference to its masks", difference, 0.0)
