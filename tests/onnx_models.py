"""Writes ONNX graphs in Triton's layout, as small as a test needs them."""

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

ValueInfo = onnx.ValueInfoProto
FLOAT, FLOAT16, UINT8 = int(TensorProto.FLOAT), int(TensorProto.FLOAT16), int(TensorProto.UINT8)
INT32, INT64, BOOL = int(TensorProto.INT32), int(TensorProto.INT64), int(TensorProto.BOOL)
TRITON_TYPES = {FLOAT: "TYPE_FP32", FLOAT16: "TYPE_FP16", UINT8: "TYPE_UINT8", INT32: "TYPE_INT32", INT64: "TYPE_INT64"}


def tensor(name: str, kind: int, *shape: int | str) -> ValueInfo:
    """Declare a graph's input or output; a string is an open axis."""
    return helper.make_tensor_value_info(name, kind, list(shape))


def write_model(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[ValueInfo],
    outputs: Sequence[ValueInfo],
    *,
    initializers: Sequence[onnx.TensorProto] = (),
    version: int = 1,
) -> None:
    """Write `<folder>/<version>/model.onnx`."""
    graph = helper.make_graph(list(nodes), folder.name, list(inputs), list(outputs), list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    path = folder / str(version) / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())


def write_config(
    folder: Path,
    inputs: Sequence[ValueInfo],
    outputs: Sequence[ValueInfo],
    *,
    max_batch_size: int = 8,
    extra: str = "dynamic_batching {}",
) -> None:
    """Write the config.pbtxt that states `inputs` and `outputs`; axis 0 is left out when batching."""
    lines = ['backend: "onnxruntime"', f"max_batch_size: {max_batch_size}"]
    for word, tensors in (("input", inputs), ("output", outputs)):
        for value in tensors:
            kind = TRITON_TYPES[value.type.tensor_type.elem_type]
            sizes = [axis.dim_value or -1 for axis in value.type.tensor_type.shape.dim]
            dims = sizes[1:] if max_batch_size else sizes
            lines.append(f'{word} [{{ name: "{value.name}" data_type: {kind} dims: {dims} }}]')
    lines.append('parameters [{ key: "intra_op_thread_count" value { string_value: "1" } }]')
    lines.append("instance_group [{ kind: KIND_CPU count: 1 }]")
    (folder / "config.pbtxt").write_text("\n".join([*lines, extra]) + "\n")
