"""An exported repository against recorded answers of the official network: only ONNX Runtime, NumPy and OpenCV."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.golden_case import BoolArray, GoldenCase, decode_rle, full_mask, iou, shrink
from export.labels import Float32Array
from export.parity import Array, Figure, Runner, restore
from export.repository import read_manifest
from export.vocabularies import TextEmbedder, split_synonyms

_CHUNK = 8
_MAP_STATISTICS = {"c5": "C5", "p5": "P5", "p4": "P4", "p3": "P3", "p2": "P2"}


@dataclass(frozen=True, slots=True)
class Tolerances:
    """Limits by the precision of the graphs (SPEC section 12), and of the store they read regions from.

    A label may differ where the recorded best class leads by less than `tie`.
    """

    feature: float
    mask_logit: float
    mask_iou: float | None
    head_logit: float
    clip_logit: float
    text: float
    tie: float
    exact: bool


def tolerances(manifest: dict[str, Any]) -> Tolerances:
    """float32 must give the recorded boxes and labels; uint8 maps cost 0.05 of a logit.

    float16 may cost logits what maps in six bits do, which left the reference every label, and masks less than an
    embedding in four bits does, which lost some (SPEC section 13). A lead below its spacing between 16 and 32, where
    logits of likely classes lie, is a tie.
    """
    stored = any(name.endswith("_scale") for name in manifest["bundle"]["region"])
    if manifest["precision"] == "float32":
        head, clip = (0.05, 0.1) if stored else (1e-2, 1e-2)
        return Tolerances(1e-3, 2e-2, 0.999, head, clip, text=1e-4, tie=0.0, exact=True)
    return Tolerances(0.05, 0.1, None, 0.075, 0.119, text=5e-3, tie=2**-6, exact=False)


def check_repository(repository: Path, folder: Path, *, case: str) -> list[Figure]:
    """All figures of one golden case."""
    golden = GoldenCase(folder, case)
    return GoldenCheck(repository, golden).figures()


def lead(fused: Array) -> Array:
    """How far the best class is ahead of the second in log scores [N,K+1]."""
    second, best = np.sort(fused[:, :-1], axis=1)[:, -2:].T
    return np.asarray(best - second)


class GoldenCheck:
    """Runs one golden case through the graphs of a repository, one session at a time to spare memory."""

    def __init__(self, repository: Path, golden: GoldenCase) -> None:
        self.repository = repository
        self.golden = golden
        self.manifest = read_manifest(repository)
        self.limits = tolerances(self.manifest)

    def figures(self) -> list[Figure]:
        """Features, then masks, then labels, then texts."""
        image, valid_size = self.golden.image(self.manifest["input_size"])
        bundle = self._runner("image_encoder")({"image": image, "valid_size": valid_size})
        figures = self._features(bundle)
        masks = self._decode(bundle)
        figures += self._masks(masks)
        encoder = self._runner("region_encoder")
        figures += self._labels(encoder, bundle, masks)
        if (self.golden.folder / f"{self.golden.name}_rois.npz").is_file():
            figures += self._rois(encoder, bundle)
        if (self.golden.folder / "text_classifier.npz").is_file():
            figures += self._texts()
        return [Figure(f"{self.golden.name} {f.name}", f.value, f.limit, f.at_least) for f in figures]

    def _runner(self, model: str) -> Runner:
        return Runner(self.repository / model / "1" / "model.onnx")

    def _features(self, bundle: dict[str, Array]) -> list[Figure]:
        """Errors relative to the std, beyond what storing as float16 or uint8 costs, and with it."""
        statistics = self.golden.facts["stats"]
        figures = []
        for name, key in {"image_embedding": "embedding", **_MAP_STATISTICS}.items():
            stats = statistics[key]
            pick = np.s_[0, :: stats["channel_step"], :: stats["spatial_step"], :: stats["spatial_step"]]
            found, step = restore(bundle, name, pick)
            error = np.abs(found - self.golden.arrays[f"sample_{key}"])
            beyond = float(np.maximum(error - step / 2, 0).max()) / stats["std"]
            figures.append(Figure(f"{name}: error / std beyond its storage", beyond, self.limits.feature))
            figures.append(Figure(f"{name}: error / std as stored", float(error.max()) / stats["std"]))
        return figures

    def _decode(self, bundle: dict[str, Array]) -> dict[str, Array]:
        """Masks of all prompts, in chunks to bound memory."""
        decoder = self._runner("prompt_decoder")
        coords, labels = self.golden.prompts()
        parts = []
        for start in range(0, labels.shape[1], _CHUNK):
            chunk = labels[:, start : start + _CHUNK]
            inputs: dict[str, Array] = {name: bundle[name] for name in self.manifest["bundle"]["mask"]}
            inputs |= {"point_coords": coords[:, start : start + _CHUNK], "point_labels": chunk}
            inputs |= {
                "mask_input": np.zeros((1, chunk.shape[1], 1, 1), np.float32),
                "has_mask_input": np.zeros(chunk.shape[:2], np.float32),
            }
            parts.append(decoder(inputs))
        return {name: np.concatenate([part[name][0] for part in parts]) for name in parts[0]}

    def _masks(self, masks: dict[str, Array]) -> list[Figure]:
        cases = self.golden.facts["cases"]
        logits: Float32Array = masks["mask_logits"].astype(np.float32)
        error = float(np.abs(logits - self.golden.arrays["lowres"].astype(np.float32)).max())
        boxes = np.array([case["lowres_box_1024"] for case in cases], np.float32)
        equal = int((masks["boxes"] == boxes).all(1).sum())
        recorded = [decode_rle(case["rle"]) for case in cases]
        size = self.manifest["input_size"]
        overlaps = [
            iou(full_mask(low, self.golden.facts, size=size), mask) for low, mask in zip(logits, recorded, strict=True)
        ]
        borders = [
            (1 - overlap) / (1 - iou(shrink(mask), mask))
            for overlap, mask in zip(overlaps, recorded, strict=True)
            if mask.any()
        ]
        return [
            Figure("mask logits: largest error", error, self.limits.mask_logit),
            Figure("masks: smallest IoU at full size", min(overlaps), self.limits.mask_iou, at_least=True),
            Figure("masks: mean IoU at full size", float(np.mean(overlaps))),
            Figure("masks: largest loss / that of one pixel of border", max(borders), 1.0),
            Figure(f"boxes equal of {len(cases)}", equal, len(cases) if self.limits.exact else None, at_least=True),
        ]

    def _labels(self, encoder: Runner, bundle: dict[str, Array], masks: dict[str, Array]) -> list[Figure]:
        cases, arrays, classifier = self.golden.facts["cases"], self.golden.arrays, self.golden.classifier()
        visibility: Float32Array = masks["visibility"].astype(np.float32)
        head, clip = self._encode(encoder, bundle, masks["boxes"])
        first, second = classifier.logits(head), classifier.logits(clip)
        drawn = (masks["boxes"] != 0).any(1)
        fused = classifier.fuse(first, second, visibility)
        figures = self._label_figures("labels", (first, second, fused), arrays, drawn)
        labels = np.array([case["label"] for case in cases])
        scores = np.exp(fused - fused.max(1, keepdims=True))
        scores /= scores.sum(1, keepdims=True)
        score_error = np.abs(scores[np.arange(len(cases)), labels] - [case["score"] for case in cases]).max()
        figures.append(self._agreement("labels", fused, labels, lead(arrays["final"])))
        figures.append(Figure("scores: largest error", float(score_error), 0.05 if self.limits.exact else None))
        boxed = [index for index, case in enumerate(cases) if "label_clip_roi_from_prompt_box" in case]
        if boxed:
            prompt_boxes = np.array([cases[index]["box"] for index in boxed], np.float32)
            _, from_box = self._encode(encoder, bundle, prompt_boxes)
            fused = classifier.fuse(first[boxed], classifier.logits(from_box), visibility[boxed])
            expected = np.array([cases[index]["label_clip_roi_from_prompt_box"] for index in boxed])
            leads = lead(arrays["final_prompt_box"])
            figures.append(self._agreement("labels with the CLIP RoI of the prompt's box", fused, expected, leads))
        return figures

    def _rois(self, encoder: Runner, bundle: dict[str, Array]) -> list[Figure]:
        arrays = dict(np.load(self.golden.folder / f"{self.golden.name}_rois.npz"))
        boxes = arrays["boxes"]
        drawn = (boxes[:, 2:] > boxes[:, :2]).all(1)
        classifier = self.golden.classifier()
        first, second = (classifier.logits(part) for part in self._encode(encoder, bundle, boxes))
        fused = classifier.fuse(first, second, np.ones(len(boxes), np.float32))
        figures = self._label_figures("RoIs", (first, second, fused), arrays, drawn)
        recorded = arrays["final"][drawn]
        expected = recorded[:, :-1].argmax(1)
        figures.append(self._agreement("labels of drawn RoIs", fused[drawn], expected, lead(recorded)))
        return figures

    def _encode(self, encoder: Runner, bundle: dict[str, Array], boxes: Array) -> tuple[Float32Array, Float32Array]:
        """Both embeddings [N,D] of boxes [N,4], read from the whole maps."""
        inputs: dict[str, Array] = {name: bundle[name] for name in self.manifest["bundle"]["region"]}
        inputs |= {f"{name}_origin": np.zeros((1, 2), np.int32) for name in self.manifest["bundle"].get("windows", {})}
        parts = [encoder(inputs | {"boxes": boxes[None, i : i + _CHUNK]}) for i in range(0, len(boxes), _CHUNK)]
        head, clip = (
            np.concatenate([part[name][0] for part in parts]).astype(np.float32)
            for name in self.manifest["recognition"]["embeddings"]
        )
        return head, clip

    def _label_figures(
        self, what: str, found: tuple[Array, Array, Array], expected: dict[str, Array], drawn: BoolArray
    ) -> list[Figure]:
        """Errors of logits, where a box is drawn: an empty one has no embedding in the graph."""
        first, second, fused = (part[drawn].astype(np.float64) for part in found)
        head, clip, final = (expected[key][drawn] for key in ("head_logits", "clip_logits", "final"))
        return [
            Figure(f"{what}: largest error of a head logit", np.abs(first - head).max(), self.limits.head_logit),
            Figure(f"{what}: largest error of a CLIP logit", np.abs(second - clip).max(), self.limits.clip_logit),
            Figure(f"{what}: largest error of a fused log score", np.abs(fused - final).max(), self.limits.clip_logit),
        ]

    def _agreement(self, what: str, fused: Array, expected: Array, leads: Array) -> Figure:
        tied = leads < self.limits.tie
        equal = int((tied | (fused[:, :-1].argmax(1) == expected)).sum())
        words = f"equal but for {tied.sum()} ties" if tied.any() else "equal"
        return Figure(f"{what}: {words} of {len(expected)}", equal, len(expected), at_least=True)

    def _texts(self) -> list[Figure]:
        """The text tower and the templates: the recorded classifier of a few awkward names."""
        arrays = np.load(self.golden.folder / "text_classifier.npz")
        embed = TextEmbedder(self.repository)
        expected = arrays["classifier"]
        error = 0.0
        for name, rows in zip(arrays["names"], expected, strict=True):
            words = split_synonyms(str(name))
            found = embed.names(words)
            error = max(error, float(np.abs(found - rows[: len(words)]).max()))
        raw = arrays["raw_first4"]
        first = embed.texts([template.replace("{}", "person") for template in self.manifest["text"]["templates"][:4]])
        unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        return [
            Figure("text embeddings: largest error", float(np.abs(first - unit).max()), self.limits.text),
            Figure("text classifier: largest error", error, self.limits.text),
        ]
