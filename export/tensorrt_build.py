"""TensorRT plans for the vision graphs, or Triton configurations for GPUs beside those for processors.

A plan runs only on the kind of GPU it was built on. Neither was ever tried on a GPU: everything up to the call of
`trtexec` is tested, and a tritonserver without a GPU loads the configurations.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import onnx
from tritonclient.grpc import model_config_pb2

from export.repository import read_config, read_manifest, write_config_message, write_manifest, write_variant

VISION_GRAPHS = ("image_encoder", "prompt_decoder", "region_encoder")
GPU_CONFIG = "gpu"
ENGINE_CACHE = "/var/cache/tensorrt"
RATE_RESOURCE = "executions"
"""What an execution takes one of; the server is told how many there are (`--rate-limit-resource`)."""
# Of two models that wait, one of priority 1 is given twice the chances of one of priority 2: a click, which somebody
# waits for, goes before a picture, and both before texts, which are kept.
_PRIORITIES = {"image_encoder": 2, "prompt_decoder": 1, "region_encoder": 1, "text_encoder": 4}
_PLAN = "model.plan"
_WORKSPACE_BYTES = 4 * 2**30
Run = Callable[[Sequence[str]], int]
Shapes = dict[str, tuple[int, ...]]


class TensorRtError(Exception):
    """A plan cannot be built on this machine; the message says what is missing."""


def build_plans(repository: Path, *, run: Run | None = None) -> list[Path]:
    """Build a plan for each vision graph and point its configuration at it; `run` starts a command, for tests."""
    start = run or _checked_runner()
    half = read_manifest(repository)["precision"] == "float16"
    plans = []
    for name in VISION_GRAPHS:
        folder = repository / name
        plan = folder / "1" / _PLAN
        if code := start(trtexec_command(folder, half=half)):
            raise TensorRtError(f"{name}: trtexec ended with code {code}; its output above says why")
        config = read_config(folder)
        config.backend, config.platform = "", "tensorrt_plan"
        config.default_model_filename = _PLAN
        config.parameters.clear()
        write_config_message(folder, config)
        plans.append(plan)
    write_manifest(repository, read_manifest(repository))
    write_gpu_configs(repository)
    return plans


def trtexec_command(folder: Path, *, half: bool) -> list[str]:
    """The builder's command line for one model, with a profile from one prompt of one image to the configured batch."""
    command = [
        "trtexec",
        f"--onnx={folder / '1' / 'model.onnx'}",
        f"--saveEngine={folder / '1' / _PLAN}",
        f"--memPoolSize=workspace:{_WORKSPACE_BYTES // 2**20}M",
        "--skipInference",
    ]
    if half:
        command.append("--fp16")
    for option, shapes in zip(("minShapes", "optShapes", "maxShapes"), profile(folder), strict=True):
        listed = ",".join(f"{name}:{'x'.join(map(str, dims))}" for name, dims in shapes.items())
        command.append(f"--{option}={listed}")
    return command


def profile(folder: Path) -> tuple[Shapes, Shapes, Shapes]:
    """Smallest, usual and largest shape of each input; the batch axis ends at config.pbtxt's max_batch_size."""
    batch = read_config(folder).max_batch_size
    graph = onnx.load(folder / "1" / "model.onnx", load_external_data=False).graph
    embedding = {value.name: value for value in graph.input}.get("image_embedding")
    side = embedding.type.tensor_type.shape.dim[2].dim_value * 4 if embedding is not None else 0
    smallest, usual, largest = {}, {}, {}
    for value in graph.input:
        ranges = [_axis_range(dim, batch=batch, mask_side=side) for dim in value.type.tensor_type.shape.dim]
        smallest[value.name], usual[value.name], largest[value.name] = zip(*ranges, strict=True)
    return smallest, usual, largest


def _axis_range(dim: onnx.TensorShapeProto.Dimension, *, batch: int, mask_side: int) -> tuple[int, int, int]:
    """A free axis by its name in the graph (`export.graphs`), a fixed one as it is."""
    free = {
        "images": (1, 1, batch),
        "prompts": (1, 4, 64),
        "points": (1, 4, 32),
        "mask_side": (1, 1, mask_side),
        "p2_rows": (16, 48, 256),
        "p2_columns": (16, 48, 256),
        "p3_rows": (16, 48, 128),
        "p3_columns": (16, 48, 128),
    }
    return free[dim.dim_param] if dim.dim_param else (dim.dim_value,) * 3


def write_gpu_configs(repository: Path) -> list[Path]:
    """configs/gpu.pbtxt of each model: its config.pbtxt with TensorRT inside ONNX Runtime, and a rate limit.

    `tritonserver --model-config-name=gpu` takes them; without it the same folder serves as before, under the same
    revision. ONNX Runtime builds and keeps engines by itself, when the models are first used.
    """
    precision = "FP16" if read_manifest(repository)["precision"] == "float16" else "FP32"
    paths = []
    for name, priority in _PRIORITIES.items():
        config = read_config(repository / name)
        if name in VISION_GRAPHS and config.backend == "onnxruntime":
            _accelerate(config, precision=precision)
        for group in config.instance_group:
            group.rate_limiter.resources.add(name=RATE_RESOURCE, count=1)
            group.rate_limiter.priority = priority
        paths.append(write_variant(repository / name, GPU_CONFIG, config))
    return paths


def _accelerate(config: model_config_pb2.ModelConfig, *, precision: str) -> None:
    tensorrt = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="tensorrt")
    tensorrt.parameters["precision_mode"] = precision
    tensorrt.parameters["max_workspace_size_bytes"] = str(_WORKSPACE_BYTES)
    tensorrt.parameters["trt_engine_cache_enable"] = "true"
    tensorrt.parameters["trt_engine_cache_path"] = f"{ENGINE_CACHE}/{config.name}"


def _checked_runner() -> Run:
    missing = list(_missing())
    if missing:
        raise TensorRtError(f"no TensorRT plan can be built here: {'; '.join(missing)}. `--provider` needs neither.")
    return lambda command: subprocess.run(command, check=False).returncode


def _missing() -> Iterator[str]:
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        yield "this machine shows no NVIDIA GPU (/dev/nvidia*), and a plan must be built on the GPU that will run it"
    if shutil.which("trtexec") is None:
        yield "trtexec is not on the path (it comes with TensorRT and with NVIDIA's TensorRT container)"
