"""nano as a user meets it: the ONNX graphs, the letterbox and the declared clean-up, in numpy and OpenCV alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from export.nano.text import TextEncoder

Float32Array = NDArray[np.float32]
BoolMask = NDArray[np.bool_]
FOREGROUND, BACKGROUND = 1, 0


@dataclass(frozen=True, slots=True)
class Prompt:
    """Clicks (x, y, label) and a box xyxy, in pixels of the original image."""

    points: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """The bundle and how the picture was laid into the model frame; sizes are (height, width)."""

    bundle: dict[str, NDArray[Any]]
    original: tuple[int, int]
    resized: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        """Factors from original to model frame for x and y."""
        return self.resized[1] / self.original[1], self.resized[0] / self.original[0]


class Nano:
    """The four graphs of a model repository."""

    def __init__(self, repository: Path, *, threads: int = 2) -> None:
        """Open all sessions."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.manifest = json.loads((repository / "manifest.json").read_text(encoding="utf-8"))
        self.size, self.side = self.manifest["input_size"], self.manifest["low_res_size"]
        self.encoder, self.decoder, self.regions = (
            onnxruntime.InferenceSession(
                str(repository / name / "1/model.onnx"),
                options,
                ["CPUExecutionProvider"],
                disabled_optimizers=["SkipLayerNormFusion"],  # as the service does
            )
            for name in ("image_encoder", "prompt_decoder", "region_encoder")
        )
        self.text = TextEncoder(repository / "text_encoder", threads=threads)

    def encode(self, image: NDArray[np.uint8]) -> EncodedImage:
        """RGB HxWx3 -> bundle."""
        height, width = image.shape[:2]
        scale = self.size / max(height, width)
        resized = int(height * scale + 0.5), int(width * scale + 0.5)
        frame = np.zeros((1, self.size, self.size, 3), np.uint8)
        frame[0, : resized[0], : resized[1]] = cv2.resize(image, resized[::-1], interpolation=cv2.INTER_LINEAR)
        values = self.encoder.run(None, {"image": frame, "valid_size": np.array([resized], np.int32)})
        names = (output.name for output in self.encoder.get_outputs())
        return EncodedImage(dict(zip(names, values, strict=True)), (height, width), resized)

    def decode(self, encoded: EncodedImage, prompt: Prompt, *, previous: Float32Array | None = None) -> Float32Array:
        """One prompt -> low-res logits [L, L]; `previous` are the logits of an earlier answer."""
        coords, labels = _slots(prompt, encoded.scale)
        inputs = {name: encoded.bundle[name] for name in self.manifest["bundle"]["mask"]} | {
            "point_coords": coords[None, None],
            "point_labels": labels[None, None],
            "mask_input": np.zeros((1, 1, 1, 1), np.float32) if previous is None else previous[None, None],
            "has_mask_input": np.array([[previous is not None]], np.float32),
        }
        logits: Float32Array = self.decoder.run(["mask_logits"], inputs)[0][0, 0]
        return logits

    def clean(self, logits: Float32Array, prompt: Prompt, *, encoded: EncodedImage) -> Float32Array:
        """The clean-up that the manifest declares; what goes gets -1, what is filled +1."""
        rules = self.manifest["clean_up"]
        if prompt.points:
            logits = cv2.GaussianBlur(logits, (0, 0), rules["smooth_sigma"])
        mask = (logits > 0).astype(np.uint8)
        area = int(mask.sum())
        if area == 0:
            return logits
        kept = self._kept(mask, prompt, encoded=encoded)
        _, labels, statistics, _ = cv2.connectedComponentsWithStats(1 - kept, connectivity=4)
        x, y, width, height, size = statistics.T
        hole = (
            (x > 0)
            & (y > 0)
            & (x + width < self.side)
            & (y + height < self.side)
            & (size < rules["fill_holes_below"] * area)
        )
        hole[0] = False
        filled = kept | hole[labels]
        return np.where(filled > mask, np.float32(1), np.where(filled < mask, np.float32(-1), logits))

    def _kept(self, mask: NDArray[np.uint8], prompt: Prompt, *, encoded: EncodedImage) -> NDArray[np.uint8]:
        rules = self.manifest["clean_up"]
        _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        if not prompt.points:
            sizes = statistics[:, cv2.CC_STAT_AREA]
            large = sizes >= rules["drop_islands_below"] * sizes[1:].sum()
            large[0] = False
            return large[labels].astype(np.uint8)
        cells = np.array(encoded.scale) * self.side / self.size
        clicks = [
            np.minimum((np.array(point[:2]) * cells).astype(int), self.side - 1) for point in prompt.points if point[2]
        ]
        hit = {int(labels[y, x]) for x, y in clicks} - {0}
        return np.isin(labels, list(hit)).astype(np.uint8) if hit and rules["keep_prompted"] else mask

    def restore(self, logits: Float32Array, encoded: EncodedImage) -> BoolMask:
        """Low-res logits -> mask in the original frame."""
        frame = cv2.resize(logits, (self.size, self.size), interpolation=cv2.INTER_LINEAR)
        valid = np.ascontiguousarray(frame[: encoded.resized[0], : encoded.resized[1]])
        return cv2.resize(valid, encoded.original[::-1], interpolation=cv2.INTER_LINEAR) > 0

    def embed(self, encoded: EncodedImage, logits: Float32Array) -> list[Float32Array]:
        """Region embeddings of one cleaned mask, [D] each."""
        mask = (logits > 0).astype(np.uint8)
        x, y, width, height = cv2.boundingRect(mask)
        box = np.array([x, y, x + width, y + height], np.float32) * (self.size / self.side)
        inputs = {name: encoded.bundle[name] for name in self.manifest["bundle"]["region"]}
        inputs |= {"boxes": box[None, None], "masks": mask[None, None]}
        names = self.manifest["recognition"]["embeddings"]
        return [value[0, 0] for value in self.regions.run(names, inputs)]

    def scores(self, embeddings: Sequence[Float32Array], texts: Float32Array) -> Float32Array:
        """Region embeddings against class embeddings [K, D] -> probabilities [K], fused as the manifest says."""
        rules = self.manifest["recognition"]
        scales = np.broadcast_to(np.asarray(rules["scale"], np.float32), (len(embeddings),))
        logs = [_log_softmax(scale * texts @ embedding) for scale, embedding in zip(scales, embeddings, strict=True)]
        weight = rules["second_weight"]["novel"]
        return np.exp(_log_softmax((1 - weight) * logs[0] + weight * logs[1] if len(logs) > 1 else logs[0]))


def _slots(prompt: Prompt, scale: tuple[float, float]) -> tuple[Float32Array, NDArray[np.int32]]:
    rows = [(x, y, label) for x, y, label in prompt.points]
    if prompt.box is not None:
        rows += [(*prompt.box[:2], 2), (*prompt.box[2:], 3)]
    table = np.array(rows, np.float32)
    return table[:, :2] * np.array(scale, np.float32), table[:, 2].astype(np.int32)


def _log_softmax(x: Float32Array) -> Float32Array:
    shifted = x - x.max()
    return shifted - np.log(np.exp(shifted).sum())
