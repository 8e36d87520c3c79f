"""A model repository as files: Triton configurations read off the graphs, and the manifest that binds them together."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from google.protobuf import text_format
from onnx import TensorProto
from tritonclient.grpc import model_config_pb2

from export.graphs import MASK_GROUP, REGION_EMBEDDINGS, WINDOWED, region_group
from export.network.text_encoder import TEMPLATES
from export.variants import LEVEL_STRIDES, Variant

_TRITON_TYPES: dict[int, str] = {
    TensorProto.FLOAT: "TYPE_FP32",
    TensorProto.FLOAT16: "TYPE_FP16",
    TensorProto.UINT8: "TYPE_UINT8",
    TensorProto.INT32: "TYPE_INT32",
    TensorProto.INT64: "TYPE_INT64",
}
_UNLISTED = {"manifest.json", "README.md"}
_VARIANTS = "configs"  # Triton's folder of further configurations: how a graph is run, which decides no revision
# geometric-mean side of a box at which a level starts and ends, with a pixel to spare where they meet
_WINDOW_SIZES = {"p2": [0, 112], "p3": [111, 224]}
_WINDOW_TILE = 16
WINDOW_SIDES = dict.fromkeys(WINDOWED, _WINDOW_TILE)
"""Smallest side of the tensors that are read by tiles."""
_LICENCE = "NTU S-Lab License 1.0 (adapter and mask decoder), MIT (CLIP), Apache-2.0 (SAM's prompt encoder)"


_SERVED_VERSIONS = 2  # gateways of the old and the new version both find theirs while a model is rolled out


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """One model of a repository; `threads` are those of its ONNX Runtime session.

    `free_sides` gives the size that a free axis of an input has in the warm-up, where 1 will not do.
    """

    path: Path
    max_batch_size: int
    threads: int = 1
    free_sides: Mapping[str, int] = field(default_factory=dict)

    @property
    def graph(self) -> Path:
        """The graph's file."""
        return self.path / "1" / "model.onnx"


def write_config(folder: ModelFolder) -> None:
    """config.pbtxt beside the graph: batched without delay, one instance, warmed up, its versions told apart."""
    model = onnx.load(folder.graph, load_external_data=False)
    config = model_config_pb2.ModelConfig(
        name=folder.path.name, backend="onnxruntime", max_batch_size=folder.max_batch_size
    )
    config.version_policy.latest.num_versions = _SERVED_VERSIONS
    initializers = {initializer.name for initializer in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    for target, values in ((config.input, inputs), (config.output, model.graph.output)):
        for value in values:
            target.add(name=value.name, data_type=_data_type(value), dims=_dims(value))
    config.instance_group.add(kind=model_config_pb2.ModelInstanceGroup.KIND_AUTO, count=1)
    # No queue policy: with one instance it stalls bursts. Admission is the service's task.
    config.dynamic_batching.max_queue_delay_microseconds = 0
    config.parameters["intra_op_thread_count"].string_value = str(folder.threads)
    # Version 1 alone: whoever adds version 2 beside it adds its digest too (export/README.md).
    config.parameters["graph_sha256.1"].string_value = version_digest(folder.graph.parent)
    warm_up = config.model_warmup.add(name="zeros", batch_size=1)
    for tensor in config.input:
        sample = warm_up.inputs[tensor.name]
        sample.data_type, sample.zero_data = tensor.data_type, True
        free = folder.free_sides.get(tensor.name, 1)
        sample.dims.extend(free if side == -1 else side for side in tensor.dims)
    write_config_message(folder.path, config)


def write_config_message(folder: Path, config: model_config_pb2.ModelConfig) -> None:
    """config.pbtxt of one model, from its parsed form."""
    (folder / "config.pbtxt").write_text(text_format.MessageToString(config), encoding="utf-8")


def write_variant(folder: Path, name: str, config: model_config_pb2.ModelConfig) -> Path:
    """A further configuration of one model, which a server takes that is started with `--model-config-name`."""
    path = folder / _VARIANTS / f"{name}.pbtxt"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text_format.MessageToString(config), encoding="utf-8")
    return path


def read_config(folder: Path) -> model_config_pb2.ModelConfig:
    """The configuration of one model."""
    config = model_config_pb2.ModelConfig()
    text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), config)
    return config


def _data_type(value: onnx.ValueInfoProto) -> int:
    return int(model_config_pb2.DataType.Value(_TRITON_TYPES[value.type.tensor_type.elem_type]))


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    """Without the batch axis; -1 where the graph is dynamic."""
    return [dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim[1:]]


def variant_manifest(variant: Variant, *, precision: str, vocabulary: str) -> dict[str, Any]:
    """What the graphs cannot say; files and revision are filled in by `write_manifest`."""
    windows = {
        name: {"stride": LEVEL_STRIDES[int(name[1]) - 2], "tile": _WINDOW_TILE, "sizes": _WINDOW_SIZES[name]}
        for name in WINDOWED
    }
    return {
        "format": 1,
        "variant": variant.name,
        "revision": "",
        "precision": precision,
        "licence": _LICENCE,
        "input_size": variant.input_size,
        "low_res_size": variant.low_res_size,
        "preprocessing": 1,
        "bundle": {
            "mask": list(MASK_GROUP),
            "region": list(region_group(variant.region_store)),
            "windows": windows,
        },
        "clean_up": None,
        "recognition": {
            "embeddings": list(REGION_EMBEDDINGS),
            "scale": 100.003,
            "background": True,
            "second_weight": {"base": 0.1, "novel": 0.9},
        },
        "text": {"templates": list(TEMPLATES), "default_vocabulary": vocabulary},
        "quality": {},
        "training": {},
        "files": {},
    }


def read_manifest(repository: Path) -> dict[str, Any]:
    """manifest.json as it stands."""
    manifest: dict[str, Any] = json.loads((repository / "manifest.json").read_text(encoding="utf-8"))
    return manifest


def write_manifest(repository: Path, manifest: dict[str, Any]) -> None:
    """Write manifest.json with the digests of all files and the revision that follows from them."""
    digests = file_digests(repository)
    complete = manifest | {"revision": revision_of(digests), "files": digests}
    partial = repository / ".manifest.json.partial"
    partial.write_text(json.dumps(complete, indent=2) + "\n", encoding="utf-8")
    partial.replace(repository / "manifest.json")


def file_digests(repository: Path) -> dict[str, str]:
    """sha256 of every file that decides an answer, by path."""
    files = sorted(path for path in repository.rglob("*") if path.is_file() and not path.name.startswith("."))
    listed = [path for path in files if path.name not in _UNLISTED and path.parent.name != _VARIANTS]
    return {path.relative_to(repository).as_posix(): _digest(path) for path in listed}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def version_digest(version: Path) -> str:
    """sha256 over the contents of a version's files in order of their names: the graph, then its external data."""
    digest = hashlib.sha256()
    for path in sorted(version.iterdir()):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def revision_of(digests: dict[str, str]) -> str:
    """The model revision: a digest over the sorted `path:sha256` lines."""
    lines = "\n".join(f"{path}:{digest}" for path, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


@contextmanager
def published_whole(target: Path) -> Iterator[Path]:
    """A folder to write into that takes the place of `target` only when the block ends without an error."""
    partial = target.with_name(f".{target.name}.partial")
    previous = target.with_name(f".{target.name}.previous")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(previous, ignore_errors=True)
    if target.exists():
        target.replace(previous)
    partial.replace(target)
    shutil.rmtree(previous, ignore_errors=True)
