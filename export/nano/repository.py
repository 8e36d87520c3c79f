"""Triton configurations from the graphs themselves, and the manifest that binds the repository's files together."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf import text_format
from onnx import TensorProto
from tritonclient.grpc import model_config_pb2

TRITON_TYPES = {
    TensorProto.FLOAT: "TYPE_FP32",
    TensorProto.FLOAT16: "TYPE_FP16",
    TensorProto.UINT8: "TYPE_UINT8",
    TensorProto.INT32: "TYPE_INT32",
    TensorProto.INT64: "TYPE_INT64",
}
UNLISTED = {"manifest.json", "README.md"}
THREADS = "1"


@dataclass(frozen=True, slots=True)
class GraphFile:
    """One model of the repository."""

    name: str
    path: Path
    max_batch_size: int


def write_config(graph: GraphFile) -> None:
    """config.pbtxt beside the graph, in production form: batched without delay, one instance on the CPU."""
    model = onnx.load(graph.path, load_external_data=False)
    config = model_config_pb2.ModelConfig(name=graph.name, backend="onnxruntime", max_batch_size=graph.max_batch_size)
    config.version_policy.latest.num_versions = 1
    initializers = {initializer.name for initializer in model.graph.initializer}
    for value in model.graph.input:
        if value.name not in initializers:
            config.input.add(name=value.name, data_type=_type(value), dims=_dims(value))
    for value in model.graph.output:
        config.output.add(name=value.name, data_type=_type(value), dims=_dims(value))
    config.instance_group.add(kind=model_config_pb2.ModelInstanceGroup.KIND_CPU, count=1)
    # No queue policy: with one instance it stalls bursts. Admission is the service's task.
    config.dynamic_batching.max_queue_delay_microseconds = 0
    config.parameters["intra_op_thread_count"].string_value = THREADS
    target = graph.path.parents[1] / "config.pbtxt"
    target.write_text(text_format.MessageToString(config), encoding="utf-8")


def _type(value: onnx.ValueInfoProto) -> int:
    return int(model_config_pb2.DataType.Value(TRITON_TYPES[value.type.tensor_type.elem_type]))


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    """Without the batch axis; -1 where the graph is dynamic."""
    return [dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim[1:]]


def file_digests(repository: Path) -> dict[str, str]:
    """sha256 of every file that decides an answer, by path."""
    files = sorted(path for path in repository.rglob("*") if path.is_file() and path.name not in UNLISTED)
    return {path.relative_to(repository).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def revision_of(digests: dict[str, str]) -> str:
    """The model revision: a digest over the sorted `path:sha256` lines."""
    lines = "\n".join(f"{path}:{digest}" for path, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def write_manifest(repository: Path, manifest: dict[str, Any]) -> None:
    """manifest.json: what the graphs cannot say, with files and revision filled in."""
    digests = file_digests(repository)
    complete = manifest | {"revision": revision_of(digests), "files": digests}
    (repository / "manifest.json").write_text(json.dumps(complete, indent=2) + "\n", encoding="utf-8")
