"""The published repository: whole or not at all, described as it is, and equal to the network it came from."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from export.graphs import GraphSpec, PromptDecoderGraph, graph_specs
from export.parity import (
    Array,
    DriftError,
    Figure,
    Runner,
    compare_graph,
    network_outputs,
    own_boxes,
    require_parity,
    table,
)
from export.repository import published_whole, read_config, read_manifest, revision_of
from tests.export.tiny_network import TINY, tiny_network

MODELS = ("image_encoder", "prompt_decoder", "region_encoder", "text_encoder")


def _runner(repository: Path, model: str) -> Runner:
    return Runner(repository / model / "1" / "model.onnx")


def _noise_image(seed: int, images: int = 1) -> dict[str, Array]:
    pixels = np.random.default_rng(seed).integers(0, 256, (images, TINY.input_size, TINY.input_size, 3), np.uint8)
    return {"image": pixels, "valid_size": np.full((images, 2), TINY.input_size, np.int32)}


def _prompts(coords: list[list[float]], labels: list[int], *, side: int = 1) -> dict[str, Array]:
    return {
        "point_coords": np.array(coords, np.float32)[None, None],
        "point_labels": np.array(labels, np.int32)[None, None],
        "mask_input": np.zeros((1, 1, side, side), np.float32),
        "has_mask_input": np.zeros((1, 1), np.float32),
    }


def test_every_file_is_in_the_manifest_with_its_digest(tiny_repository: Path) -> None:
    manifest = read_manifest(tiny_repository)
    files = {p.relative_to(tiny_repository).as_posix() for p in tiny_repository.rglob("*") if p.is_file()}
    variants = {f"{model}/configs/gpu.pbtxt" for model in MODELS}
    assert set(manifest["files"]) == files - variants - {"manifest.json", "README.md"}
    for path, digest in manifest["files"].items():
        assert hashlib.sha256((tiny_repository / path).read_bytes()).hexdigest() == digest
    assert manifest["revision"] == revision_of(manifest["files"])


def test_the_root_holds_only_models_and_plain_files(tiny_repository: Path) -> None:
    assert {path.name for path in tiny_repository.iterdir() if path.is_dir()} == set(MODELS)


@pytest.mark.parametrize("model", MODELS)
def test_the_triton_configuration_says_what_the_graph_takes_and_gives(tiny_repository: Path, model: str) -> None:
    config = read_config(tiny_repository / model)
    graph = onnx.load(tiny_repository / model / "1" / "model.onnx", load_external_data=False).graph
    for configured, values in ((config.input, graph.input), (config.output, graph.output)):
        assert [tensor.name for tensor in configured] == [value.name for value in values]
        for tensor, value in zip(configured, values, strict=True):
            batch, *dims = value.type.tensor_type.shape.dim
            assert batch.dim_param
            assert list(tensor.dims) == [-1 if dim.dim_param else dim.dim_value for dim in dims]
    assert config.max_batch_size > 0
    assert not config.dynamic_batching.HasField("default_queue_policy")


def test_the_bundle_leaves_one_graph_and_enters_the_other(tiny_repository: Path) -> None:
    manifest = read_manifest(tiny_repository)
    made = {tensor.name: tensor for tensor in read_config(tiny_repository / "image_encoder").output}
    for group, model in (("mask", "prompt_decoder"), ("region", "region_encoder")):
        taken = {tensor.name: tensor for tensor in read_config(tiny_repository / model).input}
        for name in manifest["bundle"][group]:
            assert made[name].data_type == taken[name].data_type
    assert set(made) == {*manifest["bundle"]["mask"], *manifest["bundle"]["region"]}


def test_an_image_is_encoded_alike_alone_and_in_a_batch(tiny_repository: Path) -> None:
    encode = _runner(tiny_repository, "image_encoder")
    both = _noise_image(1, images=2)
    alone = encode({name: array[1:] for name, array in both.items()})
    together = encode(both)
    for name, array in alone.items():
        np.testing.assert_allclose(together[name][1:].astype(np.float32), array.astype(np.float32), atol=1.01)
    np.testing.assert_allclose(together["image_embedding"][1:], alone["image_embedding"], atol=2e-3)


def test_what_lies_in_the_padding_does_not_matter(tiny_repository: Path) -> None:
    encode = _runner(tiny_repository, "image_encoder")
    inputs = _noise_image(2) | {"valid_size": np.array([[90, 64]], np.int32)}
    clean = dict(inputs, image=inputs["image"].copy())
    clean["image"][:, 90:] = 0
    clean["image"][:, :, 64:] = 77
    for name, array in encode(inputs).items():
        np.testing.assert_array_equal(encode(clean)[name], array)


def test_no_mask_prompt_is_the_same_at_either_size(tiny_repository: Path) -> None:
    decode = _runner(tiny_repository, "prompt_decoder")
    embedding = {"image_embedding": _embedding()}
    small = decode(embedding | _prompts([[30, 40]], [1]))
    large = decode(embedding | _prompts([[30, 40]], [1], side=TINY.low_res_size))
    np.testing.assert_array_equal(small["mask_logits"], large["mask_logits"])


def test_an_earlier_mask_changes_the_answer_as_it_does_in_the_network(tiny_repository: Path) -> None:
    side = TINY.low_res_size
    inputs: dict[str, Array] = {"image_embedding": _embedding()}
    inputs |= _prompts([[30, 40], [60, 70]], [1, 0], side=side)
    inputs["mask_input"] = np.random.default_rng(4).standard_normal((1, 1, side, side), np.float32)
    inputs["has_mask_input"] = np.ones((1, 1), np.float32)
    with torch.inference_mode():
        expected = PromptDecoderGraph(tiny_network())(*(torch.from_numpy(array) for array in inputs.values()))
    found = _runner(tiny_repository, "prompt_decoder")(inputs)
    np.testing.assert_allclose(found["mask_logits"], expected[0], atol=1e-3)
    assert not np.array_equal(
        found["mask_logits"],
        _runner(tiny_repository, "prompt_decoder")(inputs | {"has_mask_input": np.zeros((1, 1), np.float32)})[
            "mask_logits"
        ],
    )


def test_a_region_reads_the_same_from_windows_as_from_whole_maps(tiny_repository: Path) -> None:
    """The service sends the tiles under a box and one tile of zeros for a level that no box reads."""
    bundle = _runner(tiny_repository, "image_encoder")(_noise_image(5))
    encode = _runner(tiny_repository, "region_encoder")
    whole = {name: array for name, array in bundle.items() if name != "image_embedding"}
    origin = np.zeros((1, 2), np.int32)
    boxes = np.array([[[68.0, 72.0, 100.0, 96.0]]], np.float32)
    expected = encode(whole | {"p2_origin": origin, "p3_origin": origin, "boxes": boxes})
    windows = dict(whole, p2=whole["p2"][:, :, 16:32, 15:32], p3=np.zeros_like(whole["p3"][:, :, :16, :16]))
    moved = {"p2_origin": np.array([[16, 15]], np.int32), "p3_origin": origin, "boxes": boxes}
    found = encode(windows | moved)
    for name in ("head_embedding", "clip_embedding"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)
        assert np.linalg.norm(found[name]) == pytest.approx(1, abs=1e-4)


def test_an_empty_box_has_no_embedding(tiny_repository: Path) -> None:
    bundle = _runner(tiny_repository, "image_encoder")(_noise_image(6))
    bundle.pop("image_embedding")
    origin = np.zeros((1, 2), np.int32)
    boxes = np.zeros((1, 2, 4), np.float32)
    answer = _runner(tiny_repository, "region_encoder")(
        bundle | {"p2_origin": origin, "p3_origin": origin, "boxes": boxes}
    )
    assert not answer["head_embedding"].any()
    assert not answer["clip_embedding"].any()


def _decoder_spec(seed: int) -> GraphSpec:
    return next(spec for spec in graph_specs(tiny_network(seed)) if spec.name == "prompt_decoder")


def test_the_gate_lets_the_same_network_pass(tiny_repository: Path) -> None:
    spec = _decoder_spec(seed=0)
    path = tiny_repository / "prompt_decoder" / "1" / "model.onnx"
    require_parity(compare_graph(spec, path, expected=network_outputs(spec), precision="float32"))


def test_the_gate_stops_a_graph_of_other_weights(tiny_repository: Path) -> None:
    spec = _decoder_spec(seed=9)
    path = tiny_repository / "prompt_decoder" / "1" / "model.onnx"
    figures = compare_graph(spec, path, expected=network_outputs(spec), precision="float32")
    with pytest.raises(DriftError, match=r"mask_logits"):
        require_parity(figures)


def test_the_gate_stops_boxes_that_are_not_those_of_the_masks() -> None:
    logits = np.full((1, 1, 32, 32), -1, np.float32)
    logits[..., 4, 5] = 1
    own = own_boxes({"mask_logits": logits, "boxes": np.array([[[20, 16, 24, 20]]], np.float32)})
    other = own_boxes({"mask_logits": logits, "boxes": np.array([[[20, 16, 24, 24]]], np.float32)})
    assert own.holds
    assert not other.holds


def test_a_figure_without_a_limit_only_informs() -> None:
    figures = [Figure("seen", 3.0), Figure("equal of 5", 4, 5, at_least=True)]
    assert [figure.holds for figure in figures] == [True, False]
    assert table(figures).count("DRIFT") == 1


def _publish(target: Path, text: str, error: Exception | None = None) -> None:
    with published_whole(target) as folder:
        (folder / "file").write_text(text)
        if error is not None:
            raise error


def test_a_failure_leaves_the_published_repository_alone(tmp_path: Path) -> None:
    target = tmp_path / "repository"
    _publish(target, "first")
    with pytest.raises(DriftError):
        _publish(target, "second", DriftError("no"))
    assert (target / "file").read_text() == "first"
    _publish(target, "third")
    assert (target / "file").read_text() == "third"
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]


def test_the_manifest_names_what_the_service_needs(tiny_repository: Path) -> None:
    manifest = read_manifest(tiny_repository)
    assert (manifest["input_size"], manifest["low_res_size"]) == (TINY.input_size, TINY.low_res_size)
    assert len(manifest["text"]["templates"]) == 14
    assert manifest["bundle"]["windows"]["p2"] == {"stride": 4, "tile": 16, "sizes": [0, 112]}
    default = manifest["text"]["default_vocabulary"]
    shipped = tiny_repository / "text_encoder" / "vocabularies" / f"{default}.json"
    assert json.loads(shipped.read_text())["name"] == default


def _embedding() -> NDArray[np.float16]:
    shape = (1, TINY.decoder.dim, TINY.grid, TINY.grid)
    return np.random.default_rng(3).standard_normal(shape, np.float32).astype(np.float16)
