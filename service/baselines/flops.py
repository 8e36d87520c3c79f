"""What a graph costs: two floating-point operations for each multiply-add of its convolutions and matrix products.

Element-wise work, pooling and RoIAlign are left out, as papers leave them out.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod

import onnx
from onnx import NodeProto, shape_inference

Shape = Sequence[int]


def count_flops(model: onnx.ModelProto, shapes: Mapping[str, Shape]) -> int:
    """FLOPs of one run on inputs of these shapes, which must be of one image and one prompt.

    An axis that shape inference leaves open is then that of the prompts, and counts once.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in copy.graph.input:
        for axis, size in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
            axis.dim_value = size
    graph = shape_inference.infer_shapes(copy, data_prop=True).graph
    known: dict[str, Shape] = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        known[value.name] = [axis.dim_value or 1 for axis in value.type.tensor_type.shape.dim]
    return sum(_COUNTS[node.op_type](node, known) for node in graph.node if node.op_type in _COUNTS)


def _convolution(node: NodeProto, known: Mapping[str, Shape]) -> int:
    return 2 * prod(known[node.output[0]]) * prod(known[node.input[1]][1:])


def _transposed_convolution(node: NodeProto, known: Mapping[str, Shape]) -> int:
    return 2 * prod(known[node.input[0]]) * prod(known[node.input[1]][1:])


def _product(node: NodeProto, known: Mapping[str, Shape]) -> int:
    return 2 * prod(known[node.output[0]]) * known[node.input[0]][-1]


def _general_product(node: NodeProto, known: Mapping[str, Shape]) -> int:
    turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return 2 * prod(known[node.output[0]]) * known[node.input[0]][0 if turned else -1]


_COUNTS: dict[str, Callable[[NodeProto, Mapping[str, Shape]], int]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "MatMul": _product,
    "Gemm": _general_product,
}
