"""Write nano's model repository: graphs, Triton configurations, tokenizer, manifest, with a parity check on the way."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from export.nano import graphs
from export.nano.graphs import (
    INPUT_SIZE,
    LOW_RES_SIZE,
    Classifier,
    ImageEncoderGraph,
    PromptDecoderGraph,
    RegionEncoderGraph,
)
from export.nano.ingredients import TRUNK, source_folder
from export.nano.photographed_classes import load_classes
from export.nano.recognition import load_head
from export.nano.text import (
    TextEncoder,
    copy_reference_text_encoder,
    imagenet_lemmas,
    write_text_encoder,
    write_tokenizer,
)
from export.nano.train import MaskNetwork, training_record
from export.nano.trunk import Trunk, load_trunk
from export.onnx_export import forget_sources
from export.repository import ModelFolder, write_config, write_manifest
from export.tensorrt_build import write_gpu_configs

OPSET = 20
SMALLEST_HALVED = 1024
TOLERANCE = 2e-3
"""Largest difference of PyTorch and ONNX Runtime over the output's largest value (a step of float16 is 5e-4)."""
COMMON_PART = 0.7
"""Share of the mean text embedding that is taken out of every text embedding."""
TEXTS_PER_BATCH = 64
MASK_GROUP = ("image_embedding", "high_res_8", "high_res_4")
REGION_GROUP = ("region_32", "region_16", "region_64")


CLEAN_UP = {"smooth_sigma": 0.8, "keep_prompted": True, "fill_holes_below": 0.15, "drop_islands_below": 0.05}
Half = Literal["masks", "names"]
"""Image encoder and prompt decoder; region and text encoder."""
EMBEDDINGS = ("region_embedding",)
FEATURE_CROP = "feature_embedding"
"""The baseline's output: nothing that serves reads it."""
RECOGNITION = {
    "embeddings": list(EMBEDDINGS),
    "scale": 16.0,
    "background": False,
    "second_weight": {"base": 0.5, "novel": 0.5},
}
"""One embedding: photographs and drawings are weighed inside the graph, so the splits' weights have nothing to fuse."""


@dataclass(frozen=True, slots=True)
class Export:
    """A network with example inputs and the names of its tensors."""

    name: str
    network: nn.Module
    inputs: dict[str, Tensor]
    dynamic: dict[str, dict[int, object]]
    outputs: tuple[str, ...]
    max_batch_size: int


def export_repository(work: Path, repository: Path, *, only: Half | None = None) -> None:
    """Graphs from `work`'s checkpoints to `repository`; with `only` one half of them, while the other stays as it is.

    Names rest on the frozen trunk alone, so that new masks need no new names, nor new names other masks.
    """
    torch.set_num_threads(2)
    trunk, *classifier = load_trunk(source_folder(work, TRUNK))
    exports = []
    if only != "names":
        masks = MaskNetwork().eval()
        masks.load_state_dict(torch.load(work / "masks.pt", map_location="cpu", weights_only=True)["average"])
        exports += [_image_encoder(trunk, masks), _prompt_decoder(masks)]
    if only != "masks":
        texts = write_text_side(work, repository)
        photographed = load_classes(work, TextEncoder(repository / "text_encoder"))
        regions = RegionEncoderGraph(Classifier(*classifier, texts), photographed, load_head(work))
        exports.append(_region_encoder(regions))
    for export in exports:
        model = ModelFolder(repository / export.name, export.max_batch_size)
        round_weights(export.network)
        write_graph(export, model.graph)
        check_parity(export, model.graph)
        write_config(model)
    if only != "masks":
        write_config(ModelFolder(repository / "text_encoder", TEXTS_PER_BATCH))
    write_manifest(repository, manifest(work))
    write_gpu_configs(repository)


def manifest(work: Path) -> dict[str, Any]:
    """What export/README.md asks for, without files and revision; the evaluation fills in the quality."""
    return {
        "format": 1,
        "variant": "nano",
        "revision": "",
        "precision": "float32",
        "licence": "Apache-2.0",
        "input_size": INPUT_SIZE,
        "low_res_size": LOW_RES_SIZE,
        "preprocessing": 1,
        "bundle": {"mask": list(MASK_GROUP), "region": list(REGION_GROUP)},
        "clean_up": CLEAN_UP,
        "recognition": RECOGNITION,
        "text": {"templates": ["{}"], "default_vocabulary": "common"},
        "quality": {},
        "training": {"recipe": "export/nano", **training_record(work / "masks.pt")},
        "files": {},
    }


def write_text_side(work: Path, repository: Path) -> Tensor:
    """Text encoder and tokenizer; returns the embeddings of ImageNet's classes [1000, D] in its space."""
    folder = repository / "text_encoder"
    lemmas = imagenet_lemmas(work)
    reference = copy_reference_text_encoder(work, work / "text_reference")
    flat = reference([lemma for names in lemmas for lemma in names])
    mean = COMMON_PART * flat.mean(0)
    write_text_encoder(work, folder / "1/model.onnx", mean=mean)
    write_tokenizer(work, folder / "tokenizer.json")
    centred = flat - mean
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    ends = np.cumsum([len(names) for names in lemmas])
    classes = np.stack([part.mean(0) for part in np.split(centred, ends[:-1])])
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    return torch.from_numpy(classes.astype(np.float32))


@torch.no_grad()
def round_weights(network: nn.Module) -> None:
    """To the values that the file will hold, so that PyTorch and ONNX compute with the same ones."""
    for weight in (*network.parameters(), *network.buffers()):
        if weight.numel() >= SMALLEST_HALVED:
            weight.copy_(weight.half().float())


def write_graph(export: Export, target: Path) -> None:
    """One ONNX file, weights inside."""
    target.parent.mkdir(parents=True, exist_ok=True)
    program = torch.onnx.export(
        export.network.eval(),
        tuple(export.inputs.values()),
        input_names=list(export.inputs),
        output_names=list(export.outputs),
        dynamic_shapes=tuple(export.dynamic.get(name) for name in export.inputs),
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    assert program is not None
    forget_sources(program)
    model = program.model_proto
    _store_as_float16(model)
    onnx.save(model, target)


def _store_as_float16(model: onnx.ModelProto) -> None:
    """Halve the file: large weights lie in float16, are cast when the session opens; arithmetic stays float32.

    Weights were rounded before and lose nothing; what the exporter folded into constants would, and stays as it is.
    """
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT and np.prod(weight.dims) >= SMALLEST_HALVED:
            name, values = weight.name, numpy_helper.to_array(weight)
            rounded = values.astype(np.float16)
            if not np.array_equal(rounded.astype(np.float32), values):
                continue
            half = numpy_helper.from_array(rounded, f"{name}.float16")
            weight.CopyFrom(half)
            casts.append(helper.make_node("Cast", [half.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def check_parity(export: Export, target: Path) -> None:
    """Raise when ONNX Runtime disagrees with PyTorch, on the example inputs and on the first image alone."""
    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    for inputs in (export.inputs, {name: value[:1] for name, value in export.inputs.items()}):
        with torch.no_grad():
            expected = export.network(*inputs.values())
        expected = expected if isinstance(expected, tuple) else (expected,)
        found = session.run(list(export.outputs), {name: value.numpy() for name, value in inputs.items()})
        for name, want, have in zip(export.outputs, expected, found, strict=True):
            difference = np.abs(want.numpy().astype(np.float32) - have.astype(np.float32)).max()
            scale = max(float(want.abs().max()), 1e-3)
            print(f"{export.name}.{name} {have.shape}: difference {difference:.2e} of {scale:.2e}")
            if name != "boxes" and difference > TOLERANCE * scale:
                raise ValueError(
                    f"{export.name}.{name}: ONNX differs from PyTorch by {difference} (largest value {scale})"
                )


def _image_encoder(trunk: Trunk, masks: MaskNetwork) -> Export:
    batch = torch.export.Dim("batch", min=1, max=64)
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (2, INPUT_SIZE, INPUT_SIZE, 3), dtype=torch.uint8, generator=generator)
    valid = torch.tensor([[INPUT_SIZE, INPUT_SIZE], [300, INPUT_SIZE]], dtype=torch.int32)
    inputs = {"image": image, "valid_size": valid}
    dynamic: dict[str, dict[int, object]] = {name: {0: batch} for name in inputs}
    return Export("image_encoder", ImageEncoderGraph(trunk, masks.neck), inputs, dynamic, MASK_GROUP + REGION_GROUP, 8)


def _prompt_decoder(masks: MaskNetwork) -> Export:
    batch, count, slots = (torch.export.Dim(name, min=1, max=1024) for name in ("batch", "prompts", "slots"))
    side = torch.export.Dim("mask_side", min=1, max=LOW_RES_SIZE)
    generator = torch.Generator().manual_seed(0)
    inputs = _example_features(MASK_GROUP) | {
        "point_coords": torch.rand(2, 3, 5, 2, generator=generator) * INPUT_SIZE,
        "point_labels": torch.tensor([[[1, 0, -1, 1, -1], [2, 3, -1, 1, -1], [2, 3, 1, 0, -1]]] * 2, dtype=torch.int32),
        "mask_input": torch.randn(2, 3, 64, 64, generator=generator),
        "has_mask_input": torch.tensor([[1.0, 0.0, 1.0]] * 2),
    }
    per_prompt = {0: batch, 1: count}
    dynamic: dict[str, dict[int, object]] = {name: {0: batch} for name in MASK_GROUP}
    dynamic |= {"point_coords": per_prompt | {2: slots}, "point_labels": per_prompt | {2: slots}}
    dynamic |= {"mask_input": per_prompt | {2: side, 3: side}, "has_mask_input": per_prompt}
    return Export("prompt_decoder", PromptDecoderGraph(masks.decoder), inputs, dynamic, ("mask_logits", "boxes"), 8)


def _region_encoder(regions: RegionEncoderGraph) -> Export:
    batch, count = (torch.export.Dim(name, min=1, max=1024) for name in ("batch", "prompts"))
    masks = torch.zeros(2, 3, LOW_RES_SIZE, LOW_RES_SIZE, dtype=torch.uint8)
    masks[:, 0, 10:60, 20:90] = 1
    masks[:, 1, 100:104, 3:9] = 1
    boxes = graphs.mask_boxes(masks.float() - 0.5)
    inputs = _example_features(REGION_GROUP) | {"boxes": boxes, "masks": masks}
    dynamic: dict[str, dict[int, object]] = {name: {0: batch} for name in REGION_GROUP}
    dynamic |= {name: {0: batch, 1: count} for name in ("boxes", "masks")}
    return Export("region_encoder", regions, inputs, dynamic, (*EMBEDDINGS, FEATURE_CROP), 8)


def _example_features(names: tuple[str, ...]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = {}
    for name in names:
        channels, stride = graphs.BUNDLE[name]
        side = INPUT_SIZE // stride
        features[name] = torch.rand(2, channels, side, side, generator=generator).half()
    return features
