"""How good a mask is, and how long answers take; definitions as published."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from service.client.masks import BoolArray

PERCENTILES = (50, 90, 99)
_BOUNDARY_SHARE = 0.02  # of the image's diagonal, as Boundary IoU was published for COCO and LVIS


def iou(found: BoolArray, truth: BoolArray) -> float:
    """Intersection over union of two masks [H, W]; 1 for two empty ones."""
    union = int(np.count_nonzero(found | truth))
    return int(np.count_nonzero(found & truth)) / union if union else 1.0


def boundary_iou(found: BoolArray, truth: BoolArray) -> float:
    """IoU of the masks' inner bands, 2 % of the image's diagonal wide (Cheng et al., CVPR 2021); [H, W] each."""
    distance = max(1, round(_BOUNDARY_SHARE * float(np.hypot(*truth.shape))))
    return iou(inner_band(found, distance=distance), inner_band(truth, distance=distance))


def inner_band(mask: BoolArray, *, distance: int) -> BoolArray:
    """The pixels of a mask at most `distance` pixels (chessboard) from its outside; the image's border is outside."""
    padded = np.pad(mask, 1).astype(np.uint8)
    side = 2 * distance + 1
    core = cv2.erode(padded, np.ones((side, side), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    band: BoolArray = mask & (core[1:-1, 1:-1] == 0)
    return band


def deepest_pixel(area: BoolArray) -> tuple[tuple[int, int], float]:
    """(x, y) of the pixel of an area [H, W] farthest from its outside, and that distance."""
    depth = cv2.distanceTransform(np.pad(area, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    place = int(depth.argmax())
    return (place % area.shape[1], place // area.shape[1]), float(depth.max())


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Percentiles in milliseconds, with the count they rest on."""
    figures: dict[str, float] = {"count": len(seconds)}
    if seconds:
        values: NDArray[np.float64] = np.percentile(np.asarray(seconds) * 1e3, PERCENTILES)
        figures |= {f"p{share}": round(float(value), 1) for share, value in zip(PERCENTILES, values, strict=True)}
    return figures


def mean(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return float(np.mean(values)) if len(values) else None
