"""What every engine promises, run on each: the embedded ones, and Triton with and without shared memory or split."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Mapping

import numpy as np
import pytest

from service.adapters.manifest import Repository, read_repository
from service.adapters.onnx_backend import OnnxBackend
from service.adapters.openvino_backend import OpenVinoBackend
from service.adapters.shared_slots import SlotLimits
from service.adapters.split_backend import ENCODER, OTHERS, SplitBackend
from service.adapters.triton_backend import TritonBackend
from service.core.errors import BackendUnavailable, DeadlineExceeded
from service.core.ports import ModelBackend
from service.core.types import Array
from tests.end_to_end.triton_server import QUICK_PROBES, TritonProcess, running_triton
from tests.tiny_repository import write_tiny_repository


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("repository")
    write_tiny_repository(folder)
    return read_repository(folder)


@pytest.fixture(scope="module")
def triton(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonProcess]:
    with running_triton(repository.folder, tmp_path_factory.mktemp("log")) as process:
        yield process


@pytest.fixture(scope="module")
def halves(
    repository: Repository, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[TritonProcess, TritonProcess]]:
    """A server of the image encoder, and one of all else."""
    log = tmp_path_factory.mktemp("log")
    with (
        running_triton(repository.folder, log, (*QUICK_PROBES, "--models", ENCODER)) as encoder,
        running_triton(repository.folder, log, (*QUICK_PROBES, "--models", ",".join(OTHERS))) as others,
    ):
        yield encoder, others


@pytest.fixture(params=["onnx", "openvino", "triton", "triton by shared memory", "triton split"])
async def backend(request: pytest.FixtureRequest, repository: Repository) -> AsyncIterator[ModelBackend]:
    engine: ModelBackend
    if request.param == "onnx":
        engine = OnnxBackend(repository, threads=1, workers=2)
    elif request.param == "openvino":
        engine = OpenVinoBackend(repository, threads=1, workers=2, precision="f32")
    elif request.param == "triton split":
        encoder, others = request.getfixturevalue("halves")
        engine = SplitBackend(
            encoder=TritonBackend(repository, [encoder.url], models=[ENCODER]),
            others=TritonBackend(repository, [others.url], models=OTHERS),
        )
    else:
        slots = SlotLimits(count=4, size=2**20, least=0) if "shared memory" in request.param else None
        engine = TritonBackend(repository, [request.getfixturevalue("triton").url], slots=slots)
    yield engine
    await engine.close()


def prompts(*, count: int, slots: int = 2, seed: int = 0) -> dict[str, Array]:
    """Inputs of the prompt decoder for one image and `count` prompts."""
    random = np.random.default_rng(seed)
    return {
        "image_embedding": random.random((1, 3, 16, 16)).astype(np.float16),
        "point_coords": random.random((1, count, slots, 2), dtype=np.float32),
        "point_labels": np.ones((1, count, slots), np.int32),
        "mask_input": np.zeros((1, count, 1, 1), np.float32),
        "has_mask_input": np.zeros((1, count), np.float32),
    }


def assert_logits(answer: Mapping[str, Array], inputs: Mapping[str, Array]) -> None:
    """The tiny decoder adds brightness and coordinates."""
    brightness = inputs["image_embedding"].astype(np.float32).sum(axis=1, keepdims=True)
    wanted = brightness + inputs["point_coords"].astype(np.float32).sum(axis=(2, 3))[..., None, None]
    np.testing.assert_allclose(answer["mask_logits"].astype(np.float32), wanted, rtol=1e-5)


async def test_says_which_repository_it_serves(backend: ModelBackend, repository: Repository) -> None:
    assert backend.spec == repository.spec


async def test_each_model_answers_with_all_its_outputs_in_their_types(
    backend: ModelBackend, repository: Repository
) -> None:
    image = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    bundle = await backend.run("image_encoder", {"image": image, "valid_size": np.full((2, 2), 64, np.int32)})
    colours = image.reshape(2, 16, 4, 16, 4, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2)
    assert list(bundle) == list(repository.graphs["image_encoder"].outputs)
    assert bundle["colours"].dtype == np.float16
    np.testing.assert_allclose(bundle["colours"].astype(np.float32), colours, rtol=1e-3)

    decoded = await backend.run("prompt_decoder", prompts(count=3))
    assert decoded["mask_logits"].dtype == np.float32
    assert_logits(decoded, prompts(count=3))
    assert decoded["boxes"].shape == (1, 3, 4)

    region = {
        "colours": bundle["colours"][:1],
        "boxes": np.zeros((1, 2, 4), np.float32),
        "masks": np.ones((1, 2, 16, 16), np.uint8),
    }
    described = (await backend.run("region_encoder", region))["region"].astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(described, axis=-1), 1, rtol=1e-4)

    texts = await backend.run("text_encoder", {"token_ids": np.array([[1, 7], [0, 7]], np.int64)})
    np.testing.assert_array_equal(texts["text_embedding"], [[0, 1, 0], [1, 0, 0]])


async def test_concurrent_calls_of_different_shapes_keep_their_answers(backend: ModelBackend) -> None:
    inputs = [prompts(count=1 + i % 3, slots=2 + i % 2, seed=i) for i in range(24)]
    answers = await asyncio.gather(*(backend.run("prompt_decoder", tensors) for tensors in inputs))
    for tensors, answer in zip(inputs, answers, strict=True):
        assert_logits(answer, tensors)


async def test_tensors_need_not_be_contiguous(backend: ModelBackend) -> None:
    tensors = prompts(count=4)
    half = tensors | {name: tensors[name][:, ::2] for name in tensors if name != "image_embedding"}
    answer = await backend.run("prompt_decoder", half)
    assert_logits(answer, half)


async def test_tensors_that_the_graph_refuses_are_a_failure_of_the_backend(backend: ModelBackend) -> None:
    wrong = prompts(count=1) | {"point_coords": np.zeros((1, 1, 2, 3), np.float32)}
    with pytest.raises(BackendUnavailable):
        await backend.run("prompt_decoder", wrong)
    await backend.run("prompt_decoder", prompts(count=1))


async def test_no_time_left_is_a_missed_deadline(backend: ModelBackend) -> None:
    with pytest.raises(DeadlineExceeded):
        await backend.run("prompt_decoder", prompts(count=1), timeout=0.0)
    await backend.run("prompt_decoder", prompts(count=1), timeout=10.0)


async def test_cancelled_calls_leave_nothing_behind(backend: ModelBackend) -> None:
    tasks = [asyncio.create_task(backend.run("prompt_decoder", prompts(count=2, seed=i))) for i in range(20)]
    await asyncio.sleep(0.002)
    for task in tasks[::2]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    for i, answer in list(enumerate(answers))[1::2]:
        assert isinstance(answer, dict)
        assert_logits(answer, prompts(count=2, seed=i))
    async with asyncio.timeout(5):
        while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 - a call in shared memory ends with the server's answer
            await asyncio.sleep(0.01)


async def test_probe_passes_while_every_model_answers(backend: ModelBackend) -> None:
    await backend.probe()
    await backend.probe()


@pytest.mark.parametrize("precision", ["f32", "bf16", "f16", "auto"])
async def test_openvino_takes_every_precision_on_any_processor(repository: Repository, precision: str) -> None:
    engine = OpenVinoBackend(repository, threads=1, workers=1, precision=precision)
    answer = await engine.run("prompt_decoder", prompts(count=2))
    assert_logits(answer, prompts(count=2))  # the decoder stays in float32
    image = np.full((1, 64, 64, 3), 77, np.uint8)
    bundle = await engine.run("image_encoder", {"image": image, "valid_size": np.full((1, 2), 64, np.int32)})
    np.testing.assert_allclose(bundle["colours"].astype(np.float32), 77, rtol=2e-2)
    await engine.close()


def test_an_engine_that_is_not_installed_is_named(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'ovsam\[openvino\]'"):
        OpenVinoBackend(repository, threads=1, workers=1, precision="f32")
