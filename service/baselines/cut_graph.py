"""A graph cut down to what some of its outputs depend on, so that a baseline pays only for its own part."""

from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime

from service.baselines.flops import count_flops
from service.core.types import Array, Tensors


class CutGraph:
    """The part of one graph that gives `outputs`, in a session of its own."""

    def __init__(self, path: Path, outputs: Sequence[str], *, threads: int) -> None:
        self.outputs = tuple(outputs)
        self._model = cut(onnx.load(path, load_external_data=False), outputs)
        self.inputs = tuple(value.name for value in self._model.graph.input)
        self._shapes: dict[str, tuple[int, ...]] = {}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # large weights lie beside the graph's own file, and a graph in memory has no place of its own
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
        content = self._model.SerializeToString()
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """The outputs by name; of `inputs` only those are read that the outputs depend on."""
        read = {name: inputs[name] for name in self.inputs}
        self._shapes = {name: tensor.shape for name, tensor in read.items()}
        return dict(zip(self.outputs, self._session.run(self.outputs, read), strict=True))

    def flops(self) -> int:
        """What the last run cost; 0 before any."""
        return count_flops(self._model, self._shapes) if self._shapes else 0


def cut(model: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """The model without all that `outputs` do not depend on; raises KeyError when it has no such output."""
    graph = model.graph
    ends = {value.name: value for value in graph.output}
    makers = {name: node for node in graph.node for name in node.output}
    needed, left = set(), list(outputs)
    while left:
        name = left.pop()
        if name not in needed:
            needed.add(name)
            left += makers[name].input if name in makers else ()
    kept = onnx.helper.make_graph(
        [node for node in graph.node if needed & set(node.output)],
        graph.name,
        [value for value in graph.input if value.name in needed],
        [ends[name] for name in outputs],
        [tensor for tensor in graph.initializer if tensor.name in needed],
        value_info=[value for value in graph.value_info if value.name in needed],
    )
    return onnx.helper.make_model(kept, opset_imports=model.opset_import, ir_version=model.ir_version)
