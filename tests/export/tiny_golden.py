"""A golden folder for the tiny network, so that the parity tool itself is tested everywhere.

Features come from torch. Masks and labels come from the repository's own graphs: noise has so many border pixels that
one step of float16 in the embedding would move some.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools import mask as coco

from export.golden_case import full_mask
from export.graphs import ImageEncoderGraph
from export.labels import Classifier, Float32Array, second_weights
from export.parity import Array, Runner
from tests.export.tiny_network import TINY, tiny_network

CLASSES, BASE, NOVEL = 6, [0, 2], [1, 3, 5]
_PROMPTS: list[dict[str, Any]] = [
    {"points": [[40.0, 30.0]], "labels": [1]},
    {"points": [[40.0, 30.0], [90.0, 20.5]], "labels": [1, 0]},
    {"box": [20.0, 10.0, 100.0, 80.0]},
    {"points": [[64.0, 50.0]], "labels": [1], "box": [30.0, 20.0, 90.0, 70.0]},
]


@torch.inference_mode()
def write_golden(folder: Path, repository: Path, *, case: str = "image7") -> None:
    """Record one case of every kind of prompt."""
    rng = np.random.default_rng(7)
    height, width = TINY.input_size * 3 // 4, TINY.input_size
    pixels = cv2.resize(rng.integers(0, 256, (12, 16, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(folder / f"{case}_resized.png"), pixels)
    padded = torch.zeros(1, TINY.input_size, TINY.input_size, 3, dtype=torch.uint8)
    padded[0, :height] = torch.from_numpy(pixels[..., ::-1].copy())
    valid_size = torch.tensor([[height, width]], dtype=torch.int32)
    embedding, maps = ImageEncoderGraph(tiny_network()).features(padded, valid_size)
    bundle = _runner(repository, "image_encoder")({"image": padded.numpy(), "valid_size": valid_size.numpy()})
    masks = _decode(repository, bundle)
    arrays: dict[str, Any] = {"lowres": masks["mask_logits"].astype(np.float16)}
    facts: dict[str, Any] = {
        "original_hw": [height * 2, width * 2],
        "resized_hw": [height, width],
        "resized_png": f"{case}_resized.png",
        "base_classes": BASE,
        "novel_classes": NOVEL,
        "stats": {},
        "cases": [],
    }
    for name, key in {"embedding": "embedding", "c5": "C5", "p5": "P5", "p4": "P4", "p3": "P3", "p2": "P2"}.items():
        values = embedding if name == "embedding" else maps[name]
        arrays[f"sample_{key}"] = values[0, ::4, ::2, ::2].numpy()
        facts["stats"][key] = {"std": float(values.std()), "channel_step": 4, "spatial_step": 2}
    classifier = Classifier(
        _unit(rng.standard_normal((CLASSES, 2, TINY.text_dim))), second_weights(CLASSES, BASE, NOVEL)
    )
    np.save(folder / "classifier.npy", classifier.embeddings)
    arrays |= _scores(classifier, _regions(repository, bundle, masks["boxes"]), masks["visibility"])
    for index, prompt in enumerate(_PROMPTS):
        mask = full_mask(masks["mask_logits"][index], facts, size=TINY.input_size)
        rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        final = arrays["final"][index]
        label = int(final[:-1].argmax())
        facts["cases"].append(
            prompt
            | {
                "rle": {"size": rle["size"], "counts": rle["counts"].decode()},
                "lowres_box_1024": masks["boxes"][index].tolist(),
                "label": label,
                "score": float(np.exp(final[label] - np.logaddexp.reduce(final))),
            }
        )
    np.savez(folder / f"{case}.npz", **arrays)
    rois = np.array([[10, 10, 60, 90], [0, 0, 128, 128], [0, 0, 0, 0]], np.float32)
    scores = _scores(classifier, _regions(repository, bundle, rois), np.ones(len(rois), np.float32))
    np.savez(folder / f"{case}_rois.npz", boxes=rois, **scores)
    (folder / f"{case}.json").write_text(json.dumps(facts))


def _decode(repository: Path, bundle: dict[str, Array]) -> dict[str, Array]:
    """Each prompt by itself, so that the check's padded batch is held against answers without padding."""
    decode = _runner(repository, "prompt_decoder")
    rows = []
    for prompt in _PROMPTS:
        points = [*prompt.get("points", [])]
        labels = [*prompt.get("labels", [])]
        if "box" in prompt:
            points += [prompt["box"][:2], prompt["box"][2:]]
            labels += [2, 3]
        inputs: dict[str, Array] = {"point_coords": np.array([[points]], np.float32)}
        inputs |= {"image_embedding": bundle["image_embedding"], "point_labels": np.array([[labels]], np.int32)}
        inputs |= {"mask_input": np.zeros((1, 1, 1, 1), np.float32), "has_mask_input": np.zeros((1, 1), np.float32)}
        rows.append(decode(inputs))
    return {name: np.concatenate([row[name][0] for row in rows]) for name in rows[0]}


def _regions(repository: Path, bundle: dict[str, Array], boxes: Array) -> tuple[Float32Array, Float32Array]:
    origin = np.zeros((1, 2), np.int32)
    inputs = {name: array for name, array in bundle.items() if name != "image_embedding"}
    answer = _runner(repository, "region_encoder")(
        inputs | {"p2_origin": origin, "p3_origin": origin, "boxes": boxes[None]}
    )
    return answer["head_embedding"][0], answer["clip_embedding"][0]


def _runner(repository: Path, model: str) -> Runner:
    return Runner(repository / model / "1" / "model.onnx")


def _scores(
    classifier: Classifier, regions: tuple[Float32Array, Float32Array], visibility: Float32Array
) -> dict[str, Any]:
    first, second = (classifier.logits(part) for part in regions)
    fused = classifier.fuse(first, second, visibility)
    return {"head_logits": first, "clip_logits": second, "final": fused}


def _unit(x: np.ndarray[Any, np.dtype[np.float64]]) -> Float32Array:
    unit: Float32Array = (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)
    return unit
