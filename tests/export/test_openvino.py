"""The exported graphs on OpenVINO: what its engine answers is what ONNX Runtime's does."""

from pathlib import Path

import numpy as np
import pytest

from export.graphs import GraphSpec, graph_specs
from export.parity import gate_inputs
from service.adapters.manifest import read_repository
from service.adapters.onnx_backend import OnnxBackend
from service.adapters.openvino_backend import OpenVinoBackend
from service.core.types import Array
from tests.export.tiny_network import tiny_network

SPECS = {spec.name: spec for spec in graph_specs(tiny_network())}


async def answers(folder: Path, spec: GraphSpec) -> list[dict[str, Array]]:
    """What both engines give for the gate's inputs."""
    repository = read_repository(folder)
    engines = (
        OnnxBackend(repository, threads=1, workers=1),
        OpenVinoBackend(repository, threads=1, workers=1, precision="f32"),
    )
    inputs = {name: tensor.numpy() for name, tensor in gate_inputs(spec).items()}
    found = [await engine.run(spec.name, inputs) for engine in engines]  # type: ignore[arg-type]
    for engine in engines:
        await engine.close()
    return found


@pytest.mark.parametrize("name", SPECS)
async def test_both_engines_answer_alike(tiny_repository: Path, name: str) -> None:
    first, second = await answers(tiny_repository, SPECS[name])
    assert list(first) == list(second)
    for output, expected in first.items():
        assert second[output].dtype == expected.dtype
        if expected.dtype == np.uint8:
            assert (
                np.abs(second[output].astype(np.int16) - expected.astype(np.int16)).max() <= 1
            )  # a code may round the other way
        else:
            np.testing.assert_allclose(
                second[output].astype(np.float32), expected.astype(np.float32), rtol=1e-3, atol=1e-3
            )


async def test_an_empty_box_has_embeddings_of_zeros_on_both(tiny_repository: Path) -> None:
    """OpenVINO's RoiAlign divides by the number of samples, which is 0 in an empty box."""
    spec = SPECS["region_encoder"]
    empty = (spec.inputs["boxes"][0] == 0).all(-1).numpy()
    assert empty.any()
    for answer in await answers(tiny_repository, spec):
        for embedding in answer.values():
            assert not embedding[0, empty].any()
            np.testing.assert_allclose(np.linalg.norm(embedding[0, ~empty], axis=-1), 1, rtol=1e-3)
