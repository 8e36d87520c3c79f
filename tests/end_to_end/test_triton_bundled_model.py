"""The committed model repository, as it is, in a real tritonserver."""

import asyncio
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc.aio as triton_grpc
import yaml
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from service.adapters.manifest import Repository, read_repository
from service.adapters.onnx_backend import OnnxBackend
from service.adapters.probe import probe_inputs
from service.adapters.triton_backend import TritonBackend
from service.core.spec import MODEL_NAMES, ModelName
from service.core.types import Array
from tests.end_to_end.triton_server import QUICK_PROBES, ROOT, TritonProcess, running_triton

FOLDER = ROOT / "model_repository"
CLICKS: list[ModelName] = ["prompt_decoder"] * 12


@pytest.fixture(scope="module")
def repository() -> Repository:
    return read_repository(FOLDER)


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonProcess]:
    with running_triton(FOLDER, tmp_path_factory.mktemp("log")) as process:
        yield process


async def test_triton_and_the_embedded_engine_give_the_same_answers(
    triton: TritonProcess, repository: Repository
) -> None:
    """One set of files, two engines: a gateway may change from one to the other between two clicks."""
    embedded = OnnxBackend(repository, threads=1, workers=1)
    served = TritonBackend(repository, [triton.url])
    try:
        await served.probe()
        for model in MODEL_NAMES:
            inputs = probe_inputs(repository.graphs[model], repository.spec)
            ours, theirs = await embedded.run(model, inputs), await served.run(model, inputs)
            assert list(ours) == list(theirs)
            for name, array in ours.items():
                assert theirs[name].dtype == array.dtype
                np.testing.assert_allclose(
                    theirs[name].astype(np.float64), array.astype(np.float64), rtol=1e-3, atol=1e-3, err_msg=name
                )
    finally:
        await embedded.close()
        await served.close()


async def test_the_flags_of_the_gpu_overlay_change_no_answer_and_leave_no_call_waiting(
    repository: Repository, tmp_path: Path
) -> None:
    """A real server takes the GPU configurations and their rate limit; without a GPU it passes TensorRT over.

    Clicks beside pictures, more than may run at a time: each is answered, and a lone click afterwards waits for none.
    """
    flags = [flag for flag in _gpu_flags() if flag.startswith(("--model-config-name", "--rate-limit"))]
    assert len(flags) == 3
    with running_triton(FOLDER, tmp_path, (*QUICK_PROBES, "--", *flags)) as triton:
        backend = TritonBackend(repository, [triton.url])
        inputs = {model: probe_inputs(repository.graphs[model], repository.spec) for model in MODEL_NAMES}
        try:
            await backend.probe()
            assert await _accelerators(triton, "image_encoder") == ["tensorrt"]
            alone = await backend.run("prompt_decoder", inputs["prompt_decoder"])
            for _ in range(5):
                calls: list[ModelName] = [*MODEL_NAMES, *CLICKS]
                answers = await asyncio.gather(*(backend.run(model, inputs[model]) for model in calls))
                for model, answer in zip(calls, answers, strict=True):
                    if model == "prompt_decoder":
                        np.testing.assert_allclose(
                            answer["mask_logits"].astype(np.float64),
                            alone["mask_logits"].astype(np.float64),
                            rtol=1e-3,
                            atol=1e-3,
                        )
            spans = [await _seconds(backend, inputs["prompt_decoder"]) for _ in range(20)]
            assert statistics.median(spans) < 0.45  # the stall of a queue policy takes half a second
        finally:
            await backend.close()


def _gpu_flags() -> list[str]:
    overlay = subprocess.run(
        ["kubectl", "kustomize", str(ROOT / "deploy" / "overlays" / "gpu")], check=True, capture_output=True, text=True
    )
    servers = [item for item in yaml.safe_load_all(overlay.stdout) if item["metadata"]["name"] == "ovsam-triton"]
    (deployment,) = (item for item in servers if item["kind"] == "Deployment")
    flags: list[str] = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    return flags


async def _accelerators(triton: TritonProcess, model: str) -> list[str]:
    client = triton_grpc.InferenceServerClient(triton.url)
    answer = await client.get_model_config(model)
    await client.close()
    return [engine.name for engine in answer.config.optimization.execution_accelerators.gpu_execution_accelerator]


async def _seconds(backend: TritonBackend, inputs: Mapping[str, Array]) -> float:
    started = time.monotonic()
    await backend.run("prompt_decoder", inputs)
    return time.monotonic() - started


@pytest.mark.parametrize(
    "path",
    sorted([*FOLDER.glob("*/config.pbtxt"), *FOLDER.glob("*/configs/*.pbtxt")]),
    ids=lambda path: path.relative_to(FOLDER).as_posix(),
)
def test_no_configuration_steps_into_the_queue_policy_trap(path: Path) -> None:
    """With one instance a queue policy or priorities stall bursts for half a second; admission is the gateway's."""
    config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    instances = sum(group.count for group in config.instance_group)
    batching = config.dynamic_batching
    assert instances > 1 or not (batching.HasField("default_queue_policy") or batching.priority_levels)
    assert config.backend == "onnxruntime"
