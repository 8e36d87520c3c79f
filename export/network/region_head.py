"""Boxes of masks and what the network says about a region: the head feature, the CLIP feature, visibility."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.variants import LEVEL_STRIDES, LOW_RES_STRIDE

_FINEST_SIDE = 56.0
_VISIBILITY_STRIDE = 8


def mask_boxes(mask_logits: Tensor) -> Tensor:
    """Low-res logits [...,L,L] -> xyxy in model pixels [...,4] around the positive cells; zeros for an empty mask."""
    positive = mask_logits > 0
    columns, rows = positive.any(-2), positive.any(-1)
    ramp = torch.arange(mask_logits.shape[-1], dtype=torch.float32, device=mask_logits.device)
    (left, right), (top, bottom) = (_ends(line, ramp) for line in (columns, rows))
    boxes = torch.stack([left, top, right, bottom], dim=-1) * LOW_RES_STRIDE
    return torch.where(columns.any(-1, keepdim=True), boxes, torch.zeros_like(boxes))


def _ends(line: Tensor, ramp: Tensor) -> tuple[Tensor, Tensor]:
    """First and one past the last true position of [...,L]."""
    return torch.where(line, ramp, torch.inf).amin(-1), torch.where(line, ramp, -torch.inf).amax(-1) + 1


def mask_visibility(mask_logits: Tensor) -> Tensor:
    """Low-res logits [N,L,L] -> 1 where the mask survives bilinear reduction to the grid of C5, [N]."""
    side = mask_logits.shape[-1] // _VISIBILITY_STRIDE
    reduced = functional.interpolate(mask_logits[:, None], size=(side, side), mode="bilinear", align_corners=False)
    return (reduced > 0).flatten(1).any(1).to(torch.float32)


@torch.library.custom_op("ovsam_export::roi_align", mutates_args=())
def roi_align(features: Tensor, boxes: Tensor, image_index: Tensor, cells: int, stride: float) -> Tensor:
    """RoIAlign with half-pixel boxes, averaging and an adaptive sample count: what ONNX's RoiAlign computes.

    Features [B,C,H,W], boxes [N,4] xyxy in pixels, image_index [N] -> [N,C,cells,cells]. Bilinear sampling on a grid is
    separable, so each box is two small matrix products.
    """
    regions = []
    for box, index in zip(boxes.tolist(), image_index.tolist(), strict=True):
        x0, y0, x1, y1 = (value / stride - 0.5 for value in box)
        if x1 <= x0 or y1 <= y0:  # no samples: zeros, without reading the map
            regions.append(features.new_zeros(features.shape[1], cells, cells))
            continue
        rows = _axis_weights(y0, y1, size=features.shape[2], cells=cells)
        columns = _axis_weights(x0, x1, size=features.shape[3], cells=cells)
        regions.append(rows @ (features[index] @ columns.T))
    return torch.stack(regions) if regions else features.new_zeros(0, features.shape[1], cells, cells)


@roi_align.register_fake
def _shape_of_roi_align(
    features: Tensor,
    boxes: Tensor,
    image_index: Tensor,  # noqa: ARG001 - the signature is the operator's
    cells: int,
    stride: float,  # noqa: ARG001
) -> Tensor:
    return features.new_empty(boxes.shape[0], features.shape[1], cells, cells)


def _axis_weights(start: float, end: float, *, size: int, cells: int) -> Tensor:
    """Weight of every map cell in every region cell along one axis, [cells,size]; `end` is beyond `start`."""
    bin_size = (end - start) / cells
    count = math.ceil(bin_size)
    steps = (torch.arange(count, dtype=torch.float32) + 0.5) / count
    samples = start + (torch.arange(cells, dtype=torch.float32)[:, None] + steps) * bin_size
    inside = (samples >= -1) & (samples <= size)
    clamped = samples.clamp(0, size - 1)[..., None]
    hats = (1 - (clamped - torch.arange(size, dtype=torch.float32)).abs()).clamp(min=0)
    return (hats * inside[..., None]).sum(1) / count


def read_boxes(features: Tensor, boxes: Tensor, image_index: Tensor, cells: int, stride: float) -> Tensor:
    """`roi_align` that gives zeros for an empty box in every runtime: some divide by its 0 samples and give NaN."""
    drawn = (boxes[:, 2:] > boxes[:, :2]).all(1)[:, None, None, None]
    regions = roi_align(features, boxes, image_index, cells, stride)
    return torch.where(drawn, regions, torch.zeros_like(regions))


def pyramid_level(boxes: Tensor) -> Tensor:
    """Boxes [N,4] -> level to read, [N] int64: geometric-mean side below 112, 224, 448 pixels, else 3."""
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt() / _FINEST_SIDE + 1e-6
    return sum(((side >= threshold).to(torch.int64) for threshold in (2.0, 4.0, 8.0)), torch.zeros_like(side).long())


class RegionHead(nn.Module):
    """The label feature that the mask decoder's own head reads from the pyramid."""

    def __init__(self, dim: int, out_dim: int, *, cells: int) -> None:
        super().__init__()
        self.cells = cells
        self.project = nn.Conv2d(dim, out_dim, 1, bias=False)

    def forward(self, levels: list[Tensor], boxes: list[Tensor], image_index: Tensor) -> Tensor:
        """P2..P5 [B,dim,H,W] and, for each, boxes [N,4] in that map's frame (zeros: not read) -> [N,out_dim]."""
        cells = self.read(levels, boxes, image_index)
        projected: Tensor = self.project(cells.to(self.project.weight.dtype))
        # the ReLU comes before the mean: the other order changes labels
        return functional.relu(projected).mean((2, 3))

    def read(self, levels: list[Tensor], boxes: list[Tensor], image_index: Tensor) -> Tensor:
        """The cells of each region from its level, [N,dim,cells,cells]; an empty box gives zeros and costs nothing."""
        read = [
            read_boxes(level, level_boxes, image_index, self.cells, float(stride))
            for level, level_boxes, stride in zip(levels, boxes, LEVEL_STRIDES, strict=True)
        ]
        return torch.stack(read).sum(0)


def boxes_by_level(boxes: Tensor, *, shifts: list[Tensor]) -> list[Tensor]:
    """Boxes [N,4] -> for each level its own boxes, moved by -shift [N,4] into that map's frame; all others are zero."""
    chosen = pyramid_level(boxes)
    return [(boxes - shift) * (chosen == level)[:, None] for level, shift in enumerate(shifts)]
