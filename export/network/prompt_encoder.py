"""SAM's prompt encoder on point slots, so that one graph serves any mix of points and boxes."""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.network.layers import LayerNorm2d

BOX_CORNER = 2
_LABELS = 4


class FourierCode(nn.Module):
    """Random Fourier features of a position; always float32, since a turn counts more than its rounding."""

    matrix: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.zeros(2, dim // 2))

    def forward(self, position: Tensor) -> Tensor:
        """(x, y) in [0,1], [...,2] -> [...,dim]."""
        angle = 2 * math.pi * ((2 * position - 1) @ self.matrix)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class PromptEncoder(nn.Module):
    """Points, box corners and an earlier mask as tokens and as a dense embedding."""

    def __init__(self, dim: int, *, input_size: int, grid: int) -> None:
        super().__init__()
        self.input_size = input_size
        self.grid = grid
        self.fourier = FourierCode(dim)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(_LABELS))
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.no_mask_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, 4, 2, stride=2),
            LayerNorm2d(4),
            nn.GELU(),
            nn.Conv2d(4, 16, 2, stride=2),
            LayerNorm2d(16),
            nn.GELU(),
            nn.Conv2d(16, dim, 1),
        )

    def sparse(self, coords: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Point slots [N,P,2] (x, y in model pixels) and labels [N,P] -> tokens [N,P+1,dim] and their validity [N,P+1].

        The last token is SAM's padding token; it is valid when the prompt has no box.
        """
        padding = self.not_a_point_embed.weight
        used = labels >= 0
        table = torch.cat([cast(Tensor, embedding.weight) for embedding in self.point_embeddings])
        code = self.fourier((coords + 0.5) / self.input_size).to(table.dtype)
        kind = functional.embedding(labels.clamp(min=0).long(), table)
        # `where` and not a product: whatever lies in an unused slot must not reach a token
        tokens = torch.where(used[..., None], code + kind, torch.zeros_like(padding))
        tokens = torch.cat([tokens, padding.expand(tokens.shape[0], 1, -1)], dim=1)
        has_box = (labels >= BOX_CORNER).any(1, keepdim=True)
        return tokens, torch.cat([used, ~has_box], dim=1)

    def dense(self, mask_logits: Tensor, has_mask: Tensor) -> Tensor:
        """Low-res logits [N,m,m] (m = 1 stands for none) and has_mask [N] -> [N,dim,grid,grid]."""
        empty = self.no_mask_embed.weight
        side = self.grid * 4
        logits = functional.interpolate(mask_logits[:, None].to(empty.dtype), size=(side, side), mode="nearest")
        encoded: Tensor = self.mask_downscaling(logits)
        return torch.where(has_mask[:, None, None, None] > 0.5, encoded, empty[:, :, None, None])

    def positions(self) -> Tensor:
        """The code of every cell of the embedding's grid, [grid*grid,dim], rows first."""
        centre = (torch.arange(self.grid, dtype=torch.float32) + 0.5) / self.grid
        y, x = torch.meshgrid(centre, centre, indexing="ij")
        code: Tensor = self.fourier(torch.stack([x, y], dim=-1).flatten(0, 1))
        return code.to(self.no_mask_embed.weight.dtype)
