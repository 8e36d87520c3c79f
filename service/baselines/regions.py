"""Masks of the original frame as the region encoder reads them, and feature maps pooled under them."""

from collections.abc import Mapping

import cv2
import numpy as np

from service.core.bundles import REGION_PART, region_inputs, region_parts, windows_for
from service.core.masks import low_res_box
from service.core.spec import ModelSpec
from service.core.types import Array, BoolArray, Float32Array, Letterbox, Tensors, UInt8Array

GREY = (124, 116, 104)
"""ImageNet's mean colour: what normalising turns into zero, as it does with padding."""


def low_res_mask(mask: BoolArray, letterbox: Letterbox, *, spec: ModelSpec) -> BoolArray:
    """A mask [H, W] of the original frame as cells [L, L] of the model frame, each set when half of it is covered.

    A mask that covers half of no cell keeps those that it covers most.
    """
    height, width = letterbox.resized
    frame = np.zeros((spec.input_size, spec.input_size), np.float32)
    frame[:height, :width] = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    covered = _cells(frame, spec.low_res_size)
    return covered >= min(0.5, float(covered.max()) or 1.0)


def region_tensors(parts: Mapping[str, Tensors], cells: BoolArray, *, spec: ModelSpec) -> dict[str, Array]:
    """The region encoder's inputs for one low-res mask [L, L], read by tiles as the service reads them."""
    box = low_res_box(cells, input_size=spec.input_size)
    windows = windows_for([box], spec=spec)
    inputs = region_inputs({name: parts[name] for name in region_parts(windows)}, windows, spec=spec)
    return inputs | {"boxes": np.array([[box]], np.float32), "masks": cells[None, None].astype(np.uint8)}


def frozen_tensors(spec: ModelSpec) -> list[str]:
    """The map of the frozen image encoder, which leads the region group, with its scale and offset where it has any."""
    first = spec.region_tensors[0]
    return [name for name in (first, f"{first}_scale", f"{first}_offset") if name in spec.region_tensors]


def pooled_tensors(parts: Mapping[str, Tensors], cells: BoolArray, *, spec: ModelSpec) -> dict[str, Array]:
    """The frozen encoder's map with its mean under a low-res mask [L, L] in every cell, and the whole frame as box."""
    name = spec.region_tensors[0]
    stored = parts[REGION_PART][name]
    mean = _pool(parts[REGION_PART], name, cells)
    box = np.array([[[0, 0, spec.input_size, spec.input_size]]], np.float32)
    if f"{name}_scale" in spec.region_tensors:
        codes = {name: np.zeros_like(stored), f"{name}_scale": np.zeros((1, len(mean)), np.float32)}
        return codes | {f"{name}_offset": mean[None], "boxes": box}
    return {name: np.broadcast_to(mean[None, :, None, None], stored.shape).astype(stored.dtype), "boxes": box}


def cropped(pixels: UInt8Array, mask: BoolArray) -> UInt8Array:
    """The picture [H, W, 3] under a mask that is not empty, cut to the mask's box; the rest of the box is grey."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    rows, columns = slice(y, y + height), slice(x, x + width)
    crop: UInt8Array = np.where(mask[rows, columns, None], pixels[rows, columns], np.array(GREY, np.uint8))
    return crop


def _pool(region: Tensors, name: str, cells: BoolArray) -> Float32Array:
    """Mean [C] of a map [1, C, h, w] under a mask, each cell weighted by how much of it is covered."""
    values = region[name][0].astype(np.float32)
    if f"{name}_scale" in region:
        scale, offset = (region[f"{name}_{part}"][0][:, None, None] for part in ("scale", "offset"))
        values = values * scale + offset
    weights = _cells(cells.astype(np.float32), values.shape[1])
    mean: Float32Array = (values * weights).sum((1, 2), dtype=np.float32) / weights.sum()
    return mean


def _cells(frame: Float32Array, side: int) -> Float32Array:
    """Means over the squares of a grid of `side` x `side`."""
    step = frame.shape[0] // side
    means: Float32Array = frame.reshape(side, step, side, step).mean((1, 3))
    return means
