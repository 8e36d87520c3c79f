"""TensorRT up to the builder's call: no GPU is needed to get the command and the configuration right."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from export.repository import read_config, read_manifest, revision_of
from export.tensorrt_build import (
    VISION_GRAPHS,
    TensorRtError,
    build_plans,
    profile,
    trtexec_command,
    use_execution_provider,
)
from tests.export.tiny_network import TINY


@pytest.mark.parametrize("model", VISION_GRAPHS)
def test_a_profile_covers_every_input_up_to_the_configured_batch(tiny_repository: Path, model: str) -> None:
    config = read_config(tiny_repository / model)
    smallest, usual, largest = profile(tiny_repository / model)
    assert list(smallest) == [tensor.name for tensor in config.input]
    for tensor in config.input:
        name, dims = tensor.name, list(tensor.dims)
        assert (smallest[name][0], largest[name][0]) == (1, config.max_batch_size)
        for index, dim in enumerate(dims, start=1):
            if dim == -1:
                assert smallest[name][index] <= usual[name][index] <= largest[name][index]
            else:
                assert smallest[name][index] == usual[name][index] == largest[name][index] == dim


def test_a_mask_prompt_may_be_absent_or_of_full_size(tiny_repository: Path) -> None:
    smallest, _, largest = profile(tiny_repository / "prompt_decoder")
    assert smallest["mask_input"][2:] == (1, 1)
    assert largest["mask_input"][2:] == (TINY.low_res_size, TINY.low_res_size)


@pytest.mark.parametrize("half", [False, True])
def test_the_builder_is_told_precision_and_shapes(tiny_repository: Path, half: bool) -> None:  # noqa: FBT001
    command = trtexec_command(tiny_repository / "image_encoder", half=half)
    assert command[0] == "trtexec"
    assert ("--fp16" in command) is half
    side = TINY.input_size
    assert f"--maxShapes=image:4x{side}x{side}x3,valid_size:4x2" in command


def test_plans_are_built_and_named_by_the_configuration(own_repository: Path) -> None:
    def build(command: Sequence[str]) -> int:
        target = next(part.removeprefix("--saveEngine=") for part in command if part.startswith("--saveEngine="))
        Path(target).write_bytes(b"plan")
        return 0

    plans = build_plans(own_repository, run=build)
    assert [plan.exists() for plan in plans] == [True, True, True]
    for model in VISION_GRAPHS:
        config = read_config(own_repository / model)
        assert (config.platform, config.backend, config.default_model_filename) == ("tensorrt_plan", "", "model.plan")
    assert read_config(own_repository / "text_encoder").backend == "onnxruntime"
    manifest = read_manifest(own_repository)
    assert "image_encoder/1/model.plan" in manifest["files"]
    assert manifest["revision"] == revision_of(manifest["files"])


def test_a_failing_builder_is_named(own_repository: Path) -> None:
    with pytest.raises(TensorRtError, match="image_encoder: trtexec ended with code 3"):
        build_plans(own_repository, run=lambda _: 3)


@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="this machine has a GPU")
def test_without_a_gpu_the_error_says_what_is_missing(own_repository: Path) -> None:
    with pytest.raises(TensorRtError, match="no NVIDIA GPU"):
        build_plans(own_repository)


def test_the_provider_needs_only_the_configuration(own_repository: Path) -> None:
    use_execution_provider(own_repository)
    use_execution_provider(own_repository)
    for model in VISION_GRAPHS:
        config = read_config(own_repository / model)
        (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
        assert accelerator.name == "tensorrt"
        assert accelerator.parameters["precision_mode"] == "FP32"
        assert config.backend == "onnxruntime"
