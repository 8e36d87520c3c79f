"""The committed model repository: whole, within its budget, and true to the contract of export/README.md."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tritonclient.grpc import model_config_pb2

from export.nano.evaluate import FLOORS, holds_floor

REPOSITORY = Path(__file__).parents[2] / "model_repository"
MODELS = ("image_encoder", "prompt_decoder", "region_encoder", "text_encoder")
TRITON_TYPES = {
    "tensor(float)": "TYPE_FP32", "tensor(float16)": "TYPE_FP16", "tensor(uint8)": "TYPE_UINT8",
    "tensor(int32)": "TYPE_INT32", "tensor(int64)": "TYPE_INT64",
}  # fmt: skip
Feed = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    """The committed manifest."""
    content: dict[str, Any] = json.loads((REPOSITORY / "manifest.json").read_text(encoding="utf-8"))
    return content


def test_what_ships_holds_every_floor(manifest: dict[str, Any]) -> None:
    """The figures that `python -m export.nano.evaluate --write` measured; new weights that lose one do not ship."""
    quality = manifest["quality"]
    assert not [name for name in FLOORS if not holds_floor(name, quality[name])]


@pytest.fixture(scope="module")
def sessions() -> dict[str, onnxruntime.InferenceSession]:
    """The four graphs on one thread each."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return {
        name: onnxruntime.InferenceSession(str(REPOSITORY / name / "1/model.onnx"), options, ["CPUExecutionProvider"])
        for name in MODELS
    }


@pytest.fixture(scope="module")
def bundle(sessions: dict[str, onnxruntime.InferenceSession]) -> Feed:
    """One encoded picture: a bright disc on a dark ground, letterboxed."""
    y, x = np.mgrid[:512, :512]
    image = np.full((1, 512, 512, 3), 40, np.uint8)
    image[0, (x - 200) ** 2 + (y - 150) ** 2 < 90**2] = (230, 120, 60)
    return _run(sessions["image_encoder"], {"image": image, "valid_size": np.array([[340, 512]], np.int32)})


def _run(session: onnxruntime.InferenceSession, feed: Feed) -> Feed:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def _decode(session: onnxruntime.InferenceSession, bundle: Feed, coords: Any, labels: Any, **mask: Any) -> Feed:
    feed = {name: bundle[name] for name in ("image_embedding", "high_res_8", "high_res_4")}
    feed |= {"point_coords": np.array(coords, np.float32), "point_labels": np.array(labels, np.int32)}
    count = feed["point_labels"].shape[1]
    feed |= {"mask_input": np.zeros((1, count, 1, 1), np.float32), "has_mask_input": np.zeros((1, count), np.float32)}
    return _run(session, feed | mask)


def test_every_file_has_the_digest_that_the_manifest_states(manifest: dict[str, Any]) -> None:
    """`files` covers all but manifest, model card and how graphs are run; `revision` is the digest over it."""
    files = {path for path in REPOSITORY.rglob("*") if path.is_file() and path.parent.name != "configs"} - {
        REPOSITORY / "manifest.json",
        REPOSITORY / "README.md",
    }
    digests = {path.relative_to(REPOSITORY).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert manifest["files"] == digests
    lines = "\n".join(f"{path}:{digest}" for path, digest in sorted(digests.items()))
    assert manifest["revision"] == hashlib.sha256(lines.encode()).hexdigest()


def test_the_repository_keeps_its_size_budget() -> None:
    """Plain git carries it: 40 MB with the vocabularies."""
    assert sum(path.stat().st_size for path in REPOSITORY.rglob("*") if path.is_file()) <= 40_000_000


@pytest.mark.parametrize("name", MODELS)
def test_the_graphs_say_nothing_of_the_machine_that_exported_them(name: str) -> None:
    content = (REPOSITORY / name / "1/model.onnx").read_bytes()
    assert not [word for word in (b"stack_trace", b"site-packages", b".py") if word in content]


@pytest.mark.parametrize("name", MODELS)
def test_the_triton_configuration_says_what_the_graph_is(
    name: str, sessions: dict[str, onnxruntime.InferenceSession]
) -> None:
    """Names, types and shapes, without the batch axis; no queue policy."""
    text = (REPOSITORY / name / "config.pbtxt").read_text(encoding="utf-8")
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert (config.name, config.backend) == (name, "onnxruntime")
    assert config.max_batch_size >= 4
    assert not config.dynamic_batching.HasField("default_queue_policy")
    for declared, real in ((config.input, sessions[name].get_inputs()), (config.output, sessions[name].get_outputs())):
        stated = {
            tensor.name: (model_config_pb2.DataType.Name(tensor.data_type), list(tensor.dims)) for tensor in declared
        }
        graph = {
            tensor.name: (TRITON_TYPES[tensor.type], [dim if isinstance(dim, int) else -1 for dim in tensor.shape[1:]])
            for tensor in real
        }
        assert stated == graph


def test_unused_slots_have_no_influence(sessions: dict[str, onnxruntime.InferenceSession], bundle: Feed) -> None:
    """Whatever lies in a slot labelled -1, the logits stay."""
    bare = _decode(sessions["prompt_decoder"], bundle, [[[[200, 150]]]], [[[1]]])
    padded = _decode(sessions["prompt_decoder"], bundle, [[[[9, 9], [200, 150], [1e5, -1e5]]]], [[[-1, 1, -1]]])
    np.testing.assert_allclose(bare["mask_logits"], padded["mask_logits"], atol=2e-3)
    np.testing.assert_array_equal(bare["boxes"], padded["boxes"])


def test_prompts_of_a_batch_answer_as_they_do_alone(
    sessions: dict[str, onnxruntime.InferenceSession], bundle: Feed
) -> None:
    """A click, a box, and a box with a click do not see each other."""
    coords = [[[200, 150], [0, 0], [0, 0]], [[110, 60], [290, 240], [0, 0]], [[110, 60], [290, 240], [200, 150]]]
    labels = [[1, -1, -1], [2, 3, -1], [2, 3, 1]]
    together = _decode(sessions["prompt_decoder"], bundle, [coords], [labels])
    for index in range(3):
        alone = _decode(sessions["prompt_decoder"], bundle, [[coords[index]]], [[labels[index]]])
        np.testing.assert_allclose(alone["mask_logits"][0, 0], together["mask_logits"][0, index], atol=2e-3)


def test_a_click_and_a_box_find_the_disc(sessions: dict[str, onnxruntime.InferenceSession], bundle: Feed) -> None:
    """IoU with the drawn disc at low resolution, and the box around it."""
    y, x = np.mgrid[:128, :128] * 4 + 1.5
    disc = (x - 200) ** 2 + (y - 150) ** 2 < 90**2
    coords, labels = [[[[200, 150], [0, 0]], [[110, 60], [290, 240]]]], [[[1, -1], [2, 3]]]
    answer = _decode(sessions["prompt_decoder"], bundle, coords, labels)
    for found, box in zip(answer["mask_logits"][0] > 0, answer["boxes"][0], strict=True):
        assert (found & disc).sum() / (found | disc).sum() > 0.85
        rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
        np.testing.assert_array_equal(box, 4.0 * np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]))


def test_the_previous_mask_counts_only_when_it_is_announced(
    sessions: dict[str, onnxruntime.InferenceSession], bundle: Feed
) -> None:
    """`has_mask_input` decides by value; any size of `mask_input` is taken."""
    previous = np.full((1, 1, 128, 128), -6, np.float32)
    previous[..., 20:50, 30:70] = 6
    prompt: tuple[Any, Any] = ([[[[200, 150]]]], [[[1]]])
    plain = _decode(sessions["prompt_decoder"], bundle, *prompt)["mask_logits"]
    ignored = _decode(sessions["prompt_decoder"], bundle, *prompt, mask_input=previous)["mask_logits"]
    used = _decode(
        sessions["prompt_decoder"], bundle, *prompt, mask_input=previous, has_mask_input=np.ones((1, 1), np.float32)
    )
    np.testing.assert_allclose(plain, ignored, atol=2e-3)
    assert np.abs(plain - used["mask_logits"]).max() > 0.1


def test_padding_does_not_reach_the_answer(sessions: dict[str, onnxruntime.InferenceSession]) -> None:
    """What lies outside the valid size is zeroed inside the graph."""
    image = np.full((1, 512, 512, 3), 40, np.uint8)
    image[0, 340:] = 255
    noisy, clean = image, np.where(np.arange(512)[None, :, None, None] < 340, image, 0).astype(np.uint8)
    size = np.array([[340, 512]], np.int32)
    first, second = (
        _run(sessions["image_encoder"], {"image": picture, "valid_size": size}) for picture in (noisy, clean)
    )
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_region_embeddings_are_unit_vectors_and_zero_for_an_empty_mask(
    manifest: dict[str, Any], sessions: dict[str, onnxruntime.InferenceSession], bundle: Feed
) -> None:
    """All embeddings that the manifest lists."""
    masks = np.zeros((1, 2, 128, 128), np.uint8)
    masks[0, 0, 20:60, 30:70] = 1
    boxes = np.array([[[120, 80, 280, 240], [0, 0, 0, 0]]], np.float32)
    feed = {name: bundle[name] for name in manifest["bundle"]["region"]}
    answer = _run(sessions["region_encoder"], feed | {"boxes": boxes, "masks": masks})
    for name in manifest["recognition"]["embeddings"]:
        np.testing.assert_allclose(np.linalg.norm(answer[name][0], axis=1), [1, 0], atol=1e-4)


def test_text_embeddings_do_not_depend_on_their_neighbours(sessions: dict[str, onnxruntime.InferenceSession]) -> None:
    """Padding is told from the ids; related words are nearer than unrelated ones."""
    tokenizer = Tokenizer.from_file(str(REPOSITORY / "text_encoder/tokenizer.json"))
    words = ["cat", "kitten", "an old steam locomotive on a bridge over the river in winter", "train"]
    ids = np.array([encoding.ids for encoding in tokenizer.encode_batch(words)], np.int64)
    together = _run(sessions["text_encoder"], {"token_ids": ids})["text_embedding"]
    for index, word in enumerate(words):
        alone = _run(sessions["text_encoder"], {"token_ids": np.array([tokenizer.encode(word).ids], np.int64)})
        np.testing.assert_allclose(alone["text_embedding"][0], together[index], atol=1e-4)
    similar = together @ together.T
    assert similar[0, 1] > similar[0, 3] < similar[2, 3]


@pytest.mark.parametrize(
    ("name", "count"),
    [("common", None), ("coco", 80), ("lvis", 1203), ("imagenet", 1000), ("imagenet21k", 21841), ("open-22k", 22033)],
)
def test_vocabularies_are_complete_and_their_splits_point_into_them(name: str, count: int | None) -> None:
    """Sizes of the public sets; names without underscores; base and novel disjoint."""
    content = json.loads((REPOSITORY / f"text_encoder/vocabularies/{name}.json").read_text(encoding="utf-8"))
    classes = content["classes"]
    assert count is None or len(classes) == count
    assert all(names and all(n.strip() == n and n and "_" not in n for n in names) for names in classes)
    base, novel = set(content.get("base", ())), set(content.get("novel", ()))
    assert not base & novel
    assert all(0 <= index < len(classes) for index in base | novel)
    assert len({names[0].lower() for names in classes}) == len(classes), "two classes look the same"
    assert all(name.count("(") == name.count(")") for names in classes for name in names)
