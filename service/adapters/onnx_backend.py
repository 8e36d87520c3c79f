"""The embedded engine: ONNX Runtime in this process, over the same model repository that Triton serves."""

from collections.abc import Sequence

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from service.adapters.embedded_backend import EmbeddedBackend, Session, require_agreement
from service.adapters.manifest import GraphSpec, InvalidRepository, Repository, TensorSpec
from service.core.spec import MODEL_NAMES
from service.core.types import Array, Tensors

SLOW_ON_CPU = ["SkipLayerNormFusion"]
"""ONNX Runtime's fusions that cost more than they save on a processor (DECISIONS.md 50)."""
_ONNX_TYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(bool)": "bool",
}
_FAILURES = (
    ValueError,
    RuntimeError,
    ort_errors.EPFail,
    ort_errors.EngineError,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


class OnnxBackend(EmbeddedBackend):
    """ONNX Runtime's sessions; raises InvalidRepository when a graph and its config.pbtxt differ."""

    def __init__(self, repository: Repository, *, threads: int, workers: int) -> None:
        sessions = {name: _open(repository.graphs[name], threads=threads) for name in MODEL_NAMES}
        super().__init__(repository, sessions, failures=_FAILURES, workers=workers)


def _open(graph: GraphSpec, *, threads: int) -> Session:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        providers = _providers()
        disabled = SLOW_ON_CPU if providers == ["CPUExecutionProvider"] else []
        session = ort.InferenceSession(str(graph.path), options, providers=providers, disabled_optimizers=disabled)
    except Exception as error:
        raise InvalidRepository(f"{graph.path} cannot be loaded: {error}") from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    require_agreement(graph, inputs=_tensors(inputs), outputs=_tensors(outputs))
    names = list(graph.outputs)

    def call(tensors: Tensors) -> dict[str, Array]:
        return dict(zip(names, session.run(names, dict(tensors)), strict=True))

    return call


def _providers() -> list[str]:
    """CUDA where the `gpu` extra is installed, then the CPU."""
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    return [name for name in wanted if name in ort.get_available_providers()]


def _tensors(nodes: Sequence[ort.NodeArg]) -> dict[str, TensorSpec]:
    return {
        node.name: TensorSpec(
            type=_ONNX_TYPES.get(node.type, node.type),
            shape=tuple(side if isinstance(side, int) else -1 for side in node.shape),
        )
        for node in nodes
    }
