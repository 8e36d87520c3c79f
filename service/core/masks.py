"""Masks between the model frame and the original frame, and the clean-up that some models ask for."""

import cv2
import numpy as np

from service.core.spec import CleanUp
from service.core.types import BoolArray, Box, Float32Array, Letterbox, Prompt, UInt8Array

EMPTY_BOX = Box(0.0, 0.0, 0.0, 0.0)


def restore_mask(logits: Float32Array, letterbox: Letterbox, *, input_size: int) -> BoolArray:
    """Low-res logits [L, L] -> mask [H, W] in the original frame (SPEC section 9).

    Bilinear to the model frame, the padding cut off, bilinear to the original, threshold 0.
    """
    frame = cv2.resize(logits, (input_size, input_size), interpolation=cv2.INTER_LINEAR)
    height, width = letterbox.resized
    valid = np.ascontiguousarray(frame[:height, :width])
    if letterbox.resized != letterbox.original:
        size = (letterbox.original.width, letterbox.original.height)
        valid = cv2.resize(valid, size, interpolation=cv2.INTER_LINEAR)
    return np.greater(valid, 0.0)


def stability(logits: Float32Array) -> float:
    """SAM's stability score: IoU of the mask thresholded at +1 and at -1 logit; 0 for an empty mask."""
    loose = int(np.count_nonzero(logits > -1.0))
    return int(np.count_nonzero(logits > 1.0)) / loose if loose else 0.0


def mask_box(mask: BoolArray) -> Box:
    """Xyxy of a mask, the far edges exclusive; all zero when it is empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return EMPTY_BOX
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return Box(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def low_res_box(mask: BoolArray, *, input_size: int) -> Box:
    """The box of a low-res mask [L, L] in the model frame, as the prompt decoder's own `boxes`."""
    scale = input_size / mask.shape[0]
    return Box(*(side * scale for side in mask_box(mask)))


def clean_up_logits(
    logits: Float32Array, prompt: Prompt, *, rules: CleanUp, letterbox: Letterbox, input_size: int
) -> Float32Array:
    """Tidy low-res logits [L, L] as the manifest asks; what is taken away gets a logit of -1, what is filled +1.

    A prompt without clicks is a box alone: it is not smoothed, since that costs boxes precision (model card).
    """
    if prompt.points and rules.smooth_sigma > 0:
        logits = cv2.GaussianBlur(logits, (0, 0), rules.smooth_sigma).astype(np.float32)
    mask = (logits > 0).astype(np.uint8)
    area = int(mask.sum())
    if area == 0:
        return logits
    kept = _keep_components(mask, prompt, rules=rules, letterbox=letterbox, input_size=input_size)
    filled = _fill_holes(kept, smaller_than=rules.fill_holes_below * area)
    if np.array_equal(filled, mask):
        return logits
    cleaned = np.where(filled > mask, np.float32(1.0), logits)
    return np.where(filled < mask, np.float32(-1.0), cleaned).astype(np.float32)


def _keep_components(
    mask: UInt8Array, prompt: Prompt, *, rules: CleanUp, letterbox: Letterbox, input_size: int
) -> UInt8Array:
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = statistics[:, cv2.CC_STAT_AREA]
    if prompt.points:
        keep = set()
        if rules.keep_prompted:
            scale_x, scale_y = letterbox.scale
            cells = mask.shape[0] / input_size
            for point in prompt.points:
                if point.foreground:
                    row = min(int(point.y * scale_y * cells), mask.shape[0] - 1)
                    column = min(int(point.x * scale_x * cells), mask.shape[1] - 1)
                    keep.add(int(labels[row, column]))
        keep.discard(0)
        if not keep:  # every click lies beside the mask: cleaning would leave nothing
            return mask
    else:
        limit = rules.drop_islands_below * areas[1:].sum()
        keep = {label for label in range(1, len(areas)) if areas[label] >= limit}
    return np.isin(labels, list(keep)).astype(np.uint8)


def _fill_holes(mask: UInt8Array, *, smaller_than: float) -> UInt8Array:
    if smaller_than <= 0:
        return mask
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=4)
    left, top = statistics[:, cv2.CC_STAT_LEFT], statistics[:, cv2.CC_STAT_TOP]
    right = left + statistics[:, cv2.CC_STAT_WIDTH]
    bottom = top + statistics[:, cv2.CC_STAT_HEIGHT]
    inside = (left > 0) & (top > 0) & (right < mask.shape[1]) & (bottom < mask.shape[0])
    inside &= statistics[:, cv2.CC_STAT_AREA] < smaller_than
    inside[0] = False  # label 0 is the mask itself
    filled: UInt8Array = mask | inside[labels].astype(np.uint8)
    return filled
