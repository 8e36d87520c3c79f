"""Another embedded engine: OpenVINO on the CPU, over the same model repository; needs the extra `openvino`."""

import importlib
from queue import Empty, LifoQueue
from typing import Any

import numpy as np

from service.adapters.embedded_backend import EmbeddedBackend, Session, require_agreement
from service.adapters.manifest import GraphSpec, InvalidRepository, Repository, TensorSpec
from service.core.errors import BackendUnavailable
from service.core.spec import MODEL_NAMES
from service.core.types import Array, Tensors

_AUTO = "auto"
_HEAVY = "image_encoder"


class OpenVinoBackend(EmbeddedBackend):
    """OpenVINO's compiled models; raises InvalidRepository when a graph and its config.pbtxt differ.

    `precision` is what the image encoder computes in where its graph says float32: f32, bf16, f16, or auto for what the
    processor does fastest. A processor that cannot, computes in float32. The other graphs always do: they are light,
    and most of what a lower precision does to masks it does in the decoder.
    """

    def __init__(self, repository: Repository, *, threads: int, workers: int, precision: str) -> None:
        core = _library().Core()
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
        exact = options | {"INFERENCE_PRECISION_HINT": "f32"}
        heavy = options if precision == _AUTO else options | {"INFERENCE_PRECISION_HINT": precision}
        sessions = {
            name: _open(core, repository.graphs[name], heavy if name == _HEAVY else exact) for name in MODEL_NAMES
        }
        super().__init__(repository, sessions, failures=(RuntimeError, ValueError, KeyError), workers=workers)


def _library() -> Any:
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise BackendUnavailable("the engine openvino is not installed: pip install 'ovsam[openvino]'") from error


def _open(core: Any, graph: GraphSpec, options: dict[str, Any]) -> Session:
    try:
        model = core.read_model(graph.path)
        compiled = core.compile_model(model, "CPU", options)
    except RuntimeError as error:
        raise InvalidRepository(f"{graph.path} cannot be loaded: {error}") from error
    require_agreement(graph, inputs=_tensors(model.inputs), outputs=_tensors(model.outputs))
    idle: LifoQueue[Any] = LifoQueue()  # a request holds the memory of one call, so the one used last is used again

    def call(tensors: Tensors) -> dict[str, Array]:
        _require_fit(graph, tensors)
        try:
            request = idle.get_nowait()
        except Empty:
            request = compiled.create_infer_request()
        try:
            answer = request.infer({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})
            return {name: answer[name] for name in graph.outputs}
        finally:
            idle.put(request)

    return call


def _require_fit(graph: GraphSpec, tensors: Tensors) -> None:
    """OpenVINO computes with a shape that the graph does not allow, and answers with nonsense."""
    for name, spec in graph.inputs.items():
        shape = tensors[name].shape
        if len(shape) != len(spec.shape) or any(
            wanted not in (-1, side) for wanted, side in zip(spec.shape, shape, strict=True)
        ):
            raise ValueError(f"{name} is {list(shape)}, the graph takes {list(spec.shape)}")


def _tensors(ports: Any) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(
            type=port.element_type.to_dtype().name,
            shape=tuple(-1 if side.is_dynamic else side.get_length() for side in port.partial_shape),
        )
        for port in ports
        for name in port.names
    }
