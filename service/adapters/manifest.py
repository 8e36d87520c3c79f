"""Reads a model repository: manifest.json, and each config.pbtxt with Triton's own protobuf; both must agree."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from service.core.spec import MODEL_NAMES, CleanUp, ModelName, ModelSpec, Recognition, WindowSpec

DATA_TYPES = {
    "TYPE_UINT8": "uint8",
    "TYPE_INT8": "int8",
    "TYPE_INT32": "int32",
    "TYPE_INT64": "int64",
    "TYPE_FP16": "float16",
    "TYPE_FP32": "float32",
    "TYPE_BOOL": "bool",
}


class InvalidRepository(Exception):
    """The model repository cannot be served; the message says which file and what differs."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A graph's input or output: NumPy type name, and shape with the batch axis first; -1 is any size."""

    type: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """One model's config.pbtxt, as far as an engine needs it."""

    path: Path
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    max_batch_size: int


@dataclass(frozen=True, slots=True)
class Repository:
    """A model repository that was read and is consistent."""

    folder: Path
    spec: ModelSpec
    graphs: Mapping[ModelName, GraphSpec]


def read_repository(folder: Path) -> Repository:
    """Read and check a model repository; raises InvalidRepository."""
    manifest = _read_manifest(folder / "manifest.json")
    graphs: dict[ModelName, GraphSpec] = {name: _read_config(folder, name) for name in MODEL_NAMES}
    try:
        spec = _spec(manifest, graphs)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidRepository(f"{folder / 'manifest.json'}: {error!r} is missing or of the wrong type") from error
    _check_bundle(spec, graphs)
    return Repository(folder=folder, spec=spec, graphs=graphs)


def _read_manifest(path: Path) -> dict[str, object]:
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InvalidRepository(f"{path} does not exist: is this a model repository?") from error
    except ValueError as error:
        raise InvalidRepository(f"{path} is not JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != 1:
        raise InvalidRepository(f"{path} is not of manifest format 1, the only one that this service reads")
    return manifest


def _read_config(folder: Path, name: ModelName) -> GraphSpec:
    path = folder / name / "config.pbtxt"
    try:
        config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    except FileNotFoundError as error:
        raise InvalidRepository(f"{path} does not exist") from error
    except text_format.ParseError as error:
        raise InvalidRepository(f"{path} is not a Triton model configuration: {error}") from error
    if config.max_batch_size < 1:
        raise InvalidRepository(f"{path}: max_batch_size must be at least 1")
    versions = sorted(int(version.name) for version in (folder / name).iterdir() if version.name.isdigit())
    if not versions:
        raise InvalidRepository(f"{folder / name} holds no version folder")
    graph = folder / name / str(versions[-1]) / (config.default_model_filename or "model.onnx")
    return GraphSpec(
        path=graph,
        inputs={tensor.name: _tensor(tensor, path) for tensor in config.input},
        outputs={tensor.name: _tensor(tensor, path) for tensor in config.output},
        max_batch_size=config.max_batch_size,
    )


def _tensor(tensor: "model_config_pb2.ModelInput | model_config_pb2.ModelOutput", path: Path) -> TensorSpec:
    name = model_config_pb2.DataType.Name(tensor.data_type)
    if name not in DATA_TYPES:
        raise InvalidRepository(f"{path}: {tensor.name} has the type {name}, which no engine here can run")
    return TensorSpec(type=DATA_TYPES[name], shape=(-1, *tensor.dims))


def _spec(manifest: dict[str, object], graphs: Mapping[ModelName, GraphSpec]) -> ModelSpec:
    bundle, recognition, text = (_section(manifest, name) for name in ("bundle", "recognition", "text"))
    clean_up = manifest["clean_up"]
    weights = _section(recognition, "second_weight")
    embeddings = tuple(str(name) for name in _list(recognition, "embeddings"))
    scale = recognition["scale"]
    scales = tuple(scale) if isinstance(scale, list) else (scale,) * len(embeddings)
    return ModelSpec(
        variant=str(manifest["variant"]),
        revision=str(manifest["revision"]),
        precision=str(manifest["precision"]),
        licence=str(manifest["licence"]),
        input_size=int(str(manifest["input_size"])),
        low_res_size=int(str(manifest["low_res_size"])),
        preprocessing=int(str(manifest["preprocessing"])),
        mask_tensors=tuple(str(name) for name in _list(bundle, "mask")),
        region_tensors=tuple(str(name) for name in _list(bundle, "region")),
        windows={
            name: _window(rule, graphs["region_encoder"].inputs[name])
            for name, rule in _section(bundle, "windows", optional=True).items()
        },
        region_takes_masks="masks" in graphs["region_encoder"].inputs,
        clean_up=CleanUp(**clean_up) if isinstance(clean_up, dict) else None,
        recognition=Recognition(
            embeddings=embeddings,
            scale=tuple(float(value) for value in scales),
            background=bool(recognition["background"]),
            base=float(weights["base"]),
            novel=float(weights["novel"]),
        ),
        templates=tuple(str(template) for template in _list(text, "templates")),
        default_vocabulary=str(text["default_vocabulary"]),
        quality=_section(manifest, "quality", optional=True),
    )


def _window(rule: Mapping[str, Any], tensor: TensorSpec) -> WindowSpec:
    return WindowSpec(
        stride=rule["stride"],
        tile=rule["tile"],
        sizes=(rule["sizes"][0], rule["sizes"][1]),
        channels=tensor.shape[1],
        type=tensor.type,
    )


def _section(parent: Mapping[str, object], name: str, *, optional: bool = False) -> dict[str, Any]:
    section = parent.get(name, {}) if optional else parent[name]
    if not isinstance(section, dict):
        raise TypeError(f"{name} is no object")
    return section


def _list(parent: Mapping[str, object], name: str) -> list[object]:
    items = parent[name]
    if not isinstance(items, list) or not items:
        raise TypeError(f"{name} is no list with entries")
    return items


def _check_bundle(spec: ModelSpec, graphs: Mapping[ModelName, GraphSpec]) -> None:
    """Each bundle tensor must leave the image encoder and enter the graph of its group with one type."""
    made = graphs["image_encoder"].outputs
    groups: tuple[tuple[ModelName, tuple[str, ...]], ...] = (
        ("prompt_decoder", spec.mask_tensors),
        ("region_encoder", spec.region_tensors),
    )
    for model, names in groups:
        for name in names:
            taken = graphs[model].inputs.get(name)
            if name not in made or taken is None:
                raise InvalidRepository(
                    f"manifest.json lists the tensor {name}, which is not both an output of image_encoder "
                    f"and an input of {model}"
                )
            if made[name].type != taken.type:
                raise InvalidRepository(
                    f"{name} leaves image_encoder as {made[name].type} but enters {model} as {taken.type}"
                )
