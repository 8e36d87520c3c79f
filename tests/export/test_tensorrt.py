"""TensorRT up to the builder's call: no GPU is needed to get the command and the configuration right."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from export.repository import file_digests, read_config, read_manifest, revision_of
from export.tensorrt_build import (
    ENGINE_CACHE,
    RATE_RESOURCE,
    VISION_GRAPHS,
    TensorRtError,
    build_plans,
    profile,
    trtexec_command,
    write_gpu_configs,
)
from service.adapters.triton_identity import identity_of
from service.core.spec import MODEL_NAMES as MODELS
from tests.export.tiny_network import TINY

BUNDLED = Path(__file__).parents[2] / "model_repository"


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


def test_a_gpu_is_served_by_the_same_model_in_another_configuration(own_repository: Path) -> None:
    """It accelerates the vision graphs, limits all, and changes neither the others' configuration nor the revision."""
    before = read_manifest(own_repository)
    digests = file_digests(own_repository)
    paths = write_gpu_configs(own_repository)
    assert {path.relative_to(own_repository).as_posix() for path in paths} == {
        f"{model}/configs/gpu.pbtxt" for model in MODELS
    }
    assert (read_manifest(own_repository), file_digests(own_repository)) == (before, digests)
    for model in MODELS:
        usual, config = read_config(own_repository / model), _gpu_config(own_repository / model)
        assert identity_of(config, version="1") == identity_of(usual, version="1")
        accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
        assert [accelerator.name for accelerator in accelerators] == ["tensorrt"] * (model in VISION_GRAPHS)
        for accelerator in accelerators:
            assert accelerator.parameters["precision_mode"] == "FP32"
            assert accelerator.parameters["trt_engine_cache_path"] == f"{ENGINE_CACHE}/{model}"
        (resource,) = config.instance_group[0].rate_limiter.resources
        assert (resource.name, resource.count) == (RATE_RESOURCE, 1)


def test_clicks_are_given_more_chances_than_pictures_and_texts(own_repository: Path) -> None:
    write_gpu_configs(own_repository)
    priorities = [_gpu_config(own_repository / model).instance_group[0].rate_limiter.priority for model in MODELS]
    encoder, decoder, regions, texts = priorities
    assert decoder == regions < encoder < texts


def test_a_plan_needs_no_accelerator(own_repository: Path) -> None:
    build_plans(own_repository, run=lambda _: 0)
    for model in VISION_GRAPHS:
        config = _gpu_config(own_repository / model)
        assert (config.platform, config.default_model_filename) == ("tensorrt_plan", "model.plan")
        assert not config.optimization.HasField("execution_accelerators")
        assert config.instance_group[0].rate_limiter.resources


@pytest.mark.parametrize("model", MODELS)
def test_the_bundled_gpu_configurations_are_those_of_its_models(tmp_path: Path, model: str) -> None:
    """When this fails: python -m export tensorrt --repository model_repository --provider."""
    for name in ("manifest.json", *(f"{one}/config.pbtxt" for one in MODELS)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(BUNDLED / name, tmp_path / name)
    write_gpu_configs(tmp_path)
    written = tmp_path / model / "configs" / "gpu.pbtxt"
    assert (BUNDLED / model / "configs" / "gpu.pbtxt").read_text() == written.read_text()


def _gpu_config(folder: Path) -> model_config_pb2.ModelConfig:
    text = (folder / "configs" / "gpu.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())
