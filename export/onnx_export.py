"""One graph to one ONNX file, through torch's own exporter."""

import logging
import warnings
from pathlib import Path

import onnxscript
import torch
from onnxscript import opset18 as op
from torch import nn

from export.graphs import GraphSpec
from export.network.ovsam import OpenVocabularySam

OPSET = 18
# Weights beyond this lie beside the graph, where a runtime maps them in place of copying them.
_EXTERNAL_BYTES = 256 * 2**20
logging.getLogger("torch.onnx").setLevel(logging.ERROR)


def write_graph(spec: GraphSpec, path: Path) -> None:
    """Export `spec` to `path`; large weights go to `path` + `.data`."""
    axes: dict[str, torch.export.Dim] = {
        name: torch.export.Dim(name) for free in spec.free_axes.values() for name in free.values()
    }
    shapes = [{axis: axes[name] for axis, name in spec.free_axes.get(key, {}).items()} for key in spec.inputs]
    with warnings.catch_warnings():
        # remarks about torch's own tree classes and about axes that share a name on purpose
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            spec.module,
            tuple(spec.inputs.values()),
            input_names=list(spec.inputs),
            output_names=list(spec.outputs),
            dynamic_shapes=_as_signature(spec.module, shapes),
            opset_version=OPSET,
            dynamo=True,
            custom_translation_table={torch.ops.ovsam_export.roi_align.default: _roi_align},
            verbose=False,
        )
    if program is None:
        raise RuntimeError(f"{spec.name}: torch exported nothing")
    forget_sources(program)
    path.parent.mkdir(parents=True, exist_ok=True)
    program.save(str(path), external_data=_weight_bytes(spec.module) > _EXTERNAL_BYTES)


def forget_sources(program: torch.onnx.ONNXProgram) -> None:
    """Drop what the exporter notes on every node: stack traces, with the paths of the machine that exported."""
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
    for value in program.model.graph.initializers.values():
        value.metadata_props.clear()


def to_float16(network: OpenVocabularySam) -> None:
    """Halve the weights in place, but for prompts and masks: that graph is small and float16 moves mask borders."""
    network.half()
    network.prompt_encoder.float()
    network.mask_decoder.float()


def _weight_bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in module.state_dict().values())


def _as_signature(module: nn.Module, shapes: list[dict[int, torch.export.Dim]]) -> tuple[object, ...]:
    """Free axes in the form of `module.forward`'s parameters, of which the last may be variadic."""
    code = module.forward.__code__
    positional = code.co_argcount - 1
    if len(shapes) == positional:
        return tuple(shapes)
    return *shapes[:positional], tuple(shapes[positional:])


def _roi_align(
    features: onnxscript.FLOAT, boxes: onnxscript.FLOAT, image_index: onnxscript.INT64, cells: int, stride: float
) -> onnxscript.FLOAT:
    return op.RoiAlign(
        features,
        boxes,
        image_index,
        coordinate_transformation_mode="half_pixel",
        mode="avg",
        output_height=cells,
        output_width=cells,
        sampling_ratio=0,
        spatial_scale=1.0 / stride,
    )
