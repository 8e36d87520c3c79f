"""nano's networks in the clothes of the model contract (export/README.md): names, types and frames of the graphs."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.nano.network import EIGHTH, QUARTER, WIDTH, Features, Neck, PromptDecoder, Prompts
from export.nano.train import encode, normalise
from export.nano.trunk import CHANNELS, HEAD_CHANNELS, Trunk

BUNDLE = {
    "image_embedding": (WIDTH, 16),
    "high_res_8": (EIGHTH, 8),
    "high_res_4": (QUARTER, 4),
    "region_32": (HEAD_CHANNELS, 32),
    "region_16": (CHANNELS[16], 16),
    "region_64": (HEAD_CHANNELS, 64),
}
"""Channels and stride of each tensor that leaves the image encoder."""
INPUT_SIZE = 512
LOW_RES_SIZE = 128
HALVED_SIDE = 8
"""Cells of the deepest map of half the picture."""
COVERAGE_POWER = 1.5
"""A cell that the mask only touches says little about the object."""
CONSE_CLASSES = 10


class ImageEncoderGraph(nn.Module):
    """uint8 picture and its valid size -> the embedding bundle in float16."""

    def __init__(self, trunk: Trunk, neck: Neck) -> None:
        """Both with their final weights."""
        super().__init__()
        self.trunk, self.neck = trunk, neck

    def forward(self, image: Tensor, valid_size: Tensor) -> tuple[Tensor, ...]:
        """[B,S,S,3], [B,2] -> mask group (H/16, H/8, H/4), region group (H/32, H/16, and H/32 of half the picture)."""
        features, maps, halved = encode(self.trunk, self.neck, normalise(image, valid_size))
        regions = (self.trunk.head_features(maps[32]), maps[16], self.trunk.head_features(halved[32]))
        return tuple(x.half() for x in (*features, *regions))


class PromptDecoderGraph(nn.Module):
    """Mask group and prompts -> low-resolution logits and the mask's box."""

    def __init__(self, decoder: PromptDecoder) -> None:
        """With its final weights."""
        super().__init__()
        self.decoder = decoder

    def forward(
        self,
        image_embedding: Tensor,
        high_res_8: Tensor,
        high_res_4: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """-> [B,N,L,L], [B,N,4]."""
        features = Features(image_embedding.float(), high_res_8.float(), high_res_4.float())
        logits = self.decoder(features, Prompts(point_coords, point_labels, mask_input, has_mask_input))
        return logits, mask_boxes(logits)


def mask_boxes(logits: Tensor) -> Tensor:
    """BxNxLxL -> BxNx4: xyxy in the model frame around logits > 0; zeros when there are none."""
    side = logits.shape[3]
    inside = logits > 0
    ramp = torch.arange(side, dtype=torch.float32)
    edges = []
    for axis in (2, 3):
        hit = inside.any(dim=axis)
        low = torch.where(hit, ramp, float(side)).amin(2)
        high = torch.where(hit, ramp + 1, 0.0).amax(2)
        edges.append((low, high))
    (x1, x2), (y1, y2) = edges
    found = (x2 > 0).float()
    return torch.stack([x1, y1, x2, y2], dim=2) * (INPUT_SIZE / side) * found[..., None]


class Classifier(nn.Module):
    """A linear classifier of C pooled features, and the text embeddings of its K classes."""

    weight: Tensor
    bias: Tensor
    texts: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, texts: Tensor) -> None:
        """[K,C], [K], [K,D]."""
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.register_buffer("texts", texts)

    def forward(self, pooled: Tensor) -> Tensor:
        """BxNxC -> logits BxNxK."""
        return pooled @ self.weight.T + self.bias


class RegionEncoderGraph(nn.Module):
    """Region group and cleaned masks -> region embeddings in the text space.

    The second output is what the published classifier alone says about the pooled features: the feature-crop baseline.
    """

    def __init__(
        self,
        published: Classifier,
        photographed: Classifier | None = None,
        trained: tuple[nn.Module, nn.Module] | None = None,
    ) -> None:
        """ImageNet's classes by 1280 features; what was trained: the photographs' by 1392, head and gate."""
        super().__init__()
        self.published, self.photographed = published, photographed
        self.head, self.gate = trained or (None, None)

    def forward(
        self, region_32: Tensor, region_16: Tensor, region_64: Tensor, boxes: Tensor, masks: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Bx1280x16x16, Bx112x32x32, Bx1280x8x8, BxNx4, BxNxLxL -> BxNxD twice, zeros for an empty mask."""
        weights = masks.float() * (boxes[..., 2] > boxes[..., 0]).float()[..., None, None]
        found = weights.amax((2, 3)).unsqueeze(2)
        deep, shallow, halved = (pool(level.float(), weights) for level in (region_32, region_16, region_64))
        deepest = at_two_scales(deep, halved, weights)
        logits, texts = self.published(deepest), self.published.texts
        plain = embedding = conse(logits, texts)
        if self.photographed is not None:
            more = self.photographed(torch.cat([deepest, shallow], dim=2))
            embedding = conse(torch.cat([logits, more], dim=2), torch.cat([texts, self.photographed.texts]))
        if self.head is not None and self.gate is not None:
            pooled = torch.cat([deep, shallow], dim=2)
            drawn = self.gate(pooled)
            embedding = (1 - drawn) * embedding + drawn * functional.normalize(self.head(pooled), dim=2, eps=1e-6)
        return functional.normalize(embedding, dim=2, eps=1e-6) * found, plain * found


def conse(logits: Tensor, texts: Tensor) -> Tensor:
    """Convex combination of the likeliest classes' texts (Norouzi et al., 2014): BxNxK, KxD -> BxNxD, unit length."""
    best, classes = logits.softmax(2).topk(CONSE_CLASSES, dim=2)
    return functional.normalize((best[..., None] * texts[classes]).sum(2), dim=2, eps=1e-6)


def at_two_scales(whole: Tensor, halved: Tensor, masks: Tensor) -> Tensor:
    """Pooled BxNxC of a picture and of its half -> their mean; the half counts less where an object fills no cell."""
    cells = (masks.mean((2, 3)) * HALVED_SIDE**2).clamp(max=1)[..., None]
    return torch.lerp(whole, halved, 0.5 * cells)


def pool(level: Tensor, masks: Tensor) -> Tensor:
    """Mean of BxCxHxW features under BxNxLxL masks, weighted by how much of a cell is covered: BxNxC."""
    factor = masks.shape[3] // level.shape[3]
    coverage = functional.avg_pool2d(masks, factor) ** COVERAGE_POWER
    total = coverage.sum((2, 3)).clamp(min=1e-6)[..., None]
    return (coverage / total[..., None]).flatten(2) @ level.flatten(2).transpose(1, 2)
