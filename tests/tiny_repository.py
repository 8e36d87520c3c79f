"""A whole model repository of four tiny graphs that keep the model contract, for tests of engines and servers."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import helper

from tests.onnx_models import FLOAT, FLOAT16, INT32, INT64, UINT8, tensor, write_config, write_model

INPUT_SIZE, LOW_RES_SIZE = 64, 16


def write_tiny_repository(folder: Path, *, version: int = 1, offset: float = 0.0) -> None:
    """Write or extend a repository; `offset` is added to mask logits, so that two versions can be told apart."""
    _write_image_encoder(folder, version)
    _write_prompt_decoder(folder, version, offset)
    _write_region_encoder(folder, version)
    _write_text_encoder(folder, version)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    digests = {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    lines = "\n".join(f"{path}:{digest}" for path, digest in sorted(digests.items()))
    manifest = _manifest() | {"revision": hashlib.sha256(lines.encode()).hexdigest(), "files": digests}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _write_image_encoder(folder: Path, version: int) -> None:
    """Average 4 x 4 pixels of each colour."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Cast", ["pooled"], ["image_embedding"], to=FLOAT16),
        helper.make_node("Identity", ["image_embedding"], ["colours"]),
    ]
    inputs = [tensor("image", UINT8, "B", INPUT_SIZE, INPUT_SIZE, 3), tensor("valid_size", INT32, "B", 2)]
    side = LOW_RES_SIZE
    outputs = [tensor("image_embedding", FLOAT16, "B", 3, side, side), tensor("colours", FLOAT16, "B", 3, side, side)]
    _write(folder / "image_encoder", version, nodes, inputs, outputs)


def _write_prompt_decoder(folder: Path, version: int, offset: float) -> None:
    """Logits are brightness plus the sum of the coordinates plus the offset: each prompt has its own answer."""
    nodes = [
        helper.make_node("Cast", ["image_embedding"], ["features"], to=FLOAT),
        helper.make_node("ReduceSum", ["features", "axis1"], ["brightness"], keepdims=1),
        helper.make_node("ReduceSum", ["point_coords", "axes23"], ["place"], keepdims=1),
        helper.make_node("Add", ["brightness", "place"], ["unshifted"]),
        helper.make_node("Add", ["unshifted", "offset"], ["mask_logits"]),
        helper.make_node("ReduceSum", ["point_coords", "axis2"], ["first"], keepdims=0),
        helper.make_node("Concat", ["first", "first"], ["boxes"], axis=2),
    ]
    inputs = [
        tensor("image_embedding", FLOAT16, "B", 3, LOW_RES_SIZE, LOW_RES_SIZE),
        tensor("point_coords", FLOAT, "B", "N", "P", 2),
        tensor("point_labels", INT32, "B", "N", "P"),
        tensor("mask_input", FLOAT, "B", "N", "m", "m"),
        tensor("has_mask_input", FLOAT, "B", "N"),
    ]
    outputs = [
        tensor("mask_logits", FLOAT, "B", "N", LOW_RES_SIZE, LOW_RES_SIZE),
        tensor("boxes", FLOAT, "B", "N", 4),
    ]
    constants = [
        helper.make_tensor("axis1", INT64, [1], [1]),
        helper.make_tensor("axis2", INT64, [1], [2]),
        helper.make_tensor("axes23", INT64, [2], [2, 3]),
        helper.make_tensor("offset", FLOAT, [], [offset]),
    ]
    _write(folder / "prompt_decoder", version, nodes, inputs, outputs, constants)


def _write_region_encoder(folder: Path, version: int) -> None:
    """The mean colour inside the mask, at unit length."""
    nodes = [
        helper.make_node("Cast", ["masks"], ["inside"], to=FLOAT),
        helper.make_node("Cast", ["colours"], ["features"], to=FLOAT),
        helper.make_node("Einsum", ["inside", "features"], ["sums"], equation="bnhw,bchw->bnc"),
        helper.make_node("LpNormalization", ["sums"], ["region"], axis=-1, p=2),
    ]
    side = LOW_RES_SIZE
    inputs = [
        tensor("colours", FLOAT16, "B", 3, side, side),
        tensor("boxes", FLOAT, "B", "N", 4),
        tensor("masks", UINT8, "B", "N", side, side),
    ]
    _write(folder / "region_encoder", version, nodes, inputs, [tensor("region", FLOAT, "B", "N", 3)])


def _write_text_encoder(folder: Path, version: int) -> None:
    """A text's embedding is the colour that its first token id names: 0 red, 1 green, 2 blue."""
    nodes = [
        helper.make_node("Gather", ["token_ids", "zero"], ["first"], axis=1),
        helper.make_node("Mod", ["first", "three"], ["colour"]),
        helper.make_node("Gather", ["table", "colour"], ["text_embedding"], axis=0),
    ]
    constants = [
        helper.make_tensor("zero", INT64, [], [0]),
        helper.make_tensor("three", INT64, [], [3]),
        helper.make_tensor("table", FLOAT, [3, 3], [1, 0, 0, 0, 1, 0, 0, 0, 1]),
    ]
    inputs, outputs = [tensor("token_ids", INT64, "M", "T")], [tensor("text_embedding", FLOAT, "M", 3)]
    _write(folder / "text_encoder", version, nodes, inputs, outputs, constants)


def _manifest() -> dict[str, object]:
    return {
        "format": 1,
        "variant": "tiny",
        "precision": "float32",
        "licence": "Apache-2.0",
        "input_size": INPUT_SIZE,
        "low_res_size": LOW_RES_SIZE,
        "preprocessing": 1,
        "bundle": {"mask": ["image_embedding"], "region": ["colours"], "windows": {}},
        "clean_up": None,
        "recognition": {
            "embeddings": ["region"],
            "scale": 20.0,
            "background": False,
            "second_weight": {"base": 0.0, "novel": 0.0},
        },
        "text": {"templates": ["{}"], "default_vocabulary": "common"},
        "quality": {},
        "training": {},
    }


def _write(
    folder: Path,
    version: int,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto] = (),
) -> None:
    write_model(folder, nodes, inputs, outputs, initializers=constants, version=version)
    extra = "dynamic_batching {} version_policy { latest { num_versions: 2 } }"
    for graph in folder.glob("*/model.onnx"):
        digest = hashlib.sha256(graph.read_bytes()).hexdigest()
        extra += f' parameters [{{ key: "graph_sha256.{graph.parent.name}" value {{ string_value: "{digest}" }} }}]'
    write_config(folder, inputs, outputs, extra=extra)
