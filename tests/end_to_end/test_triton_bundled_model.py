"""The committed model repository, as it is, in a real tritonserver."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from service.adapters.manifest import Repository, read_repository
from service.adapters.onnx_backend import OnnxBackend
from service.adapters.probe import probe_inputs
from service.adapters.triton_backend import TritonBackend
from service.core.spec import MODEL_NAMES
from tests.end_to_end.triton_server import ROOT, TritonProcess, running_triton

FOLDER = ROOT / "model_repository"


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


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*/config.pbtxt")), ids=lambda path: path.parent.name)
def test_no_configuration_steps_into_the_queue_policy_trap(path: Path) -> None:
    """With one instance a queue policy or priorities stall bursts for half a second; admission is the gateway's."""
    config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    instances = sum(group.count for group in config.instance_group)
    batching = config.dynamic_batching
    assert instances > 1 or not (batching.HasField("default_queue_policy") or batching.priority_levels)
    assert config.backend == "onnxruntime"
