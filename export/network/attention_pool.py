"""CLIP's attention pool over the cells of a region, folded so that a region costs 0.15 GFLOP in place of 8.9.

Only the first query is kept, so the key and value projections are moved to the other side of the two products: with
u = W_k^T q, q . (W_k x + b_k) = u . x + const (the constant cancels in the softmax), and sum_t a_t (W_v x_t + b_v) =
W_v (sum_t a_t x_t) + b_v. Exact, not an approximation.
"""

import torch
from torch import Tensor, nn

_HEAD_DIM = 64


class AttentionPool(nn.Module):
    """The pooled feature of one region in the space of the text embeddings."""

    def __init__(self, channels: int, out_dim: int, *, cells: int) -> None:
        super().__init__()
        self.heads = channels // _HEAD_DIM
        self.positional_embedding = nn.Parameter(torch.zeros(cells * cells + 1, channels))
        self.q_proj = nn.Linear(channels, channels)
        self.k_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.c_proj = nn.Linear(channels, out_dim)

    def forward(self, region: Tensor) -> Tensor:
        """Cells [N,C,c,c] -> [N,out_dim]."""
        tokens = region.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1) + self.positional_embedding
        # heads lead, so that each product is one batched matrix multiplication
        query = torch.unflatten(self.q_proj(tokens[:, 0]) * _HEAD_DIM**-0.5, -1, (self.heads, -1)).transpose(0, 1)
        key = query @ torch.unflatten(self.k_proj.weight, 0, (self.heads, -1))
        attention = (key.transpose(0, 1) @ tokens.transpose(1, 2)).softmax(-1)
        mixed = (attention @ tokens).transpose(0, 1)
        value = mixed @ torch.unflatten(self.v_proj.weight, 0, (self.heads, -1)).transpose(1, 2)
        out: Tensor = self.c_proj(value.transpose(0, 1).flatten(1) + self.v_proj.bias)
        return out
