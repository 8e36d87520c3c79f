"""The text side: MiniLM as one graph from token ids to a unit embedding, and the class names of ImageNet."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from export.nano.ingredients import SYNSETS, TEXT_TOWER, TOKENIZER, source_folder

WIDTH = 384
MAX_TOKENS = 64
OPSET = 18
Float32Array = NDArray[np.float32]


def write_tokenizer(work: Path, target: Path) -> None:
    """tokenizer.json with truncation and padding (id 0) set inside."""
    tokenizer = Tokenizer.from_file(str(next(source_folder(work, TOKENIZER).rglob("tokenizer.json"))))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding(pad_id=0, pad_to_multiple_of=8)
    target.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(target), pretty=False)


def write_text_encoder(work: Path, target: Path, *, mean: Float32Array) -> None:
    """Wrap the published graph: mask from the ids, mean over tokens, unit length, minus `mean` [D], unit length.

    Sentence embeddings share a large common part; without it, unrelated names come apart.
    """
    model = onnx.load(next(source_folder(work, TEXT_TOWER).rglob("model.onnx")))
    graph = model.graph
    nodes = [
        helper.make_node("Equal", ["token_ids", "padding_id"], ["is_padding"]),
        helper.make_node("Not", ["is_padding"], ["is_token"]),
        helper.make_node("Cast", ["is_token"], ["attention_mask"], to=TensorProto.INT64),
        helper.make_node("Mul", ["attention_mask", "padding_id"], ["token_type_ids"]),
        helper.make_node("Identity", ["token_ids"], ["input_ids"]),
        *graph.node,
        helper.make_node("Cast", ["is_token"], ["token_weight_flat"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["token_weight_flat", "last_axis"], ["token_weight"]),
        helper.make_node("Mul", ["last_hidden_state", "token_weight"], ["weighted_states"]),
        helper.make_node("ReduceSum", ["weighted_states", "token_axis"], ["summed_states"], keepdims=0),
        helper.make_node("LpNormalization", ["summed_states"], ["sentence"], axis=1, p=2),
        helper.make_node("Sub", ["sentence", "common_part"], ["centred"]),
        helper.make_node("LpNormalization", ["centred"], ["text_embedding"], axis=1, p=2),
    ]
    constants = {
        "padding_id": np.array(0, np.int64),
        "last_axis": np.array([2], np.int64),
        "token_axis": np.array([1], np.int64),
        "common_part": mean.astype(np.float32),
    }
    wrapped = helper.make_graph(
        nodes,
        "text_encoder",
        [helper.make_tensor_value_info("token_ids", TensorProto.INT64, ["texts", "tokens"])],
        [helper.make_tensor_value_info("text_embedding", TensorProto.FLOAT, ["texts", WIDTH])],
        [*graph.initializer, *(numpy_helper.from_array(value, name) for name, value in constants.items())],
    )
    wrapped_model = helper.make_model(wrapped, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    onnx.checker.check_model(wrapped_model)
    target.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(wrapped_model, target)


class TextEncoder:
    """Runs the written graph; used by the recipe and by the evaluation alike."""

    def __init__(self, folder: Path, *, threads: int = 2) -> None:
        """`folder` is text_encoder/ of a model repository."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(folder / "1/model.onnx"), options, ["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def __call__(self, texts: Sequence[str], *, batch: int = 64) -> Float32Array:
        """Texts -> [M, D], unit length."""
        rows = []
        for start in range(0, len(texts), batch):
            encodings = self.tokenizer.encode_batch(list(texts[start : start + batch]))
            ids = np.array([encoding.ids for encoding in encodings], np.int64)
            rows.append(self.session.run(["text_embedding"], {"token_ids": ids})[0])
        return np.concatenate(rows)


def imagenet_synsets(work: Path, synsets: str = "imagenet_synsets.txt") -> dict[str, list[str]]:
    """Synset -> lemmas, in the order of timm's file (by default the order of the classifier's outputs)."""
    folder = next(source_folder(work, SYNSETS).rglob(synsets)).parent
    lines = (folder / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    lemmas = dict(line.split("\t", 1) for line in lines if line)
    order = (folder / synsets).read_text(encoding="utf-8").split()
    return {synset: [lemma.strip() for lemma in lemmas[synset].replace("_", " ").split(",")] for synset in order}


def imagenet_lemmas(work: Path) -> list[list[str]]:
    """The lemmas of each class, in the order of the classifier's outputs."""
    return list(imagenet_synsets(work).values())


def copy_reference_text_encoder(work: Path, folder: Path) -> TextEncoder:
    """The uncentred text encoder, from which the common part is measured."""
    write_text_encoder(work, folder / "1/model.onnx", mean=np.zeros(WIDTH, np.float32))
    write_tokenizer(work, folder / "tokenizer.json")
    return TextEncoder(folder)
