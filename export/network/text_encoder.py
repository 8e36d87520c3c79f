"""CLIP's text transformer: token ids to an embedding in the space the regions are compared in."""

import torch
from torch import Tensor, nn

from export.network.layers import merge_heads, split_heads
from export.variants import TextSizes

_SIZES = ("small", "medium", "large")
TEMPLATES = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    *(f"a photo of a {size} {{}}." for size in _SIZES),
    *(f"This is a photo of a {size} {{}}." for size in _SIZES),
    *(f"There is a {size} {{}} in the scene." for size in _SIZES),
)
"""The sentences whose mean stands for a name; the classifier was built with exactly these."""


class CausalAttention(nn.Module):
    """Self-attention with CLIP's joint input projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.in_proj = nn.Linear(width, width * 3)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """[M,T,width], bias [T,T] -> [M,T,width]."""
        query, key, value = (split_heads(part, self.heads) for part in self.in_proj(x).chunk(3, dim=-1))
        attention = ((query * self.scale) @ key.transpose(2, 3) + bias).softmax(-1)
        out: Tensor = self.out_proj(merge_heads(attention @ value))
        return out


class QuickGelu(nn.Module):
    """x * sigmoid(1.702 x), the approximation CLIP was trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """[...] -> [...]."""
        return x * torch.sigmoid(1.702 * x)


class TextBlock(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = CausalAttention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, width * 4), QuickGelu(), nn.Linear(width * 4, width))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """[M,T,width] -> [M,T,width]."""
        x = x + self.attn(self.ln_1(x), bias)
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class TextEncoder(nn.Module):
    """Texts of any length up to the context: causal attention makes trailing padding harmless."""

    causal: Tensor

    def __init__(self, sizes: TextSizes, *, out_dim: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(sizes.vocabulary, sizes.width)
        self.positional_embedding = nn.Parameter(torch.zeros(sizes.context, sizes.width))
        self.blocks = nn.ModuleList(TextBlock(sizes.width, sizes.heads) for _ in range(sizes.layers))
        self.ln_final = nn.LayerNorm(sizes.width)
        self.text_projection = nn.Parameter(torch.zeros(sizes.width, out_dim))
        future = torch.full((sizes.context, sizes.context), -30000.0).triu(1)
        self.register_buffer("causal", future, persistent=False)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Token ids [M,T] -> features [M,out_dim], not normalised, read at the largest id (the end of the text)."""
        length = token_ids.shape[1]
        x = self.token_embedding(token_ids) + self.positional_embedding[:length]
        bias = self.causal[:length, :length]
        for block in self.blocks:
            x = block(x, bias)
        end = token_ids.argmax(-1)[:, None, None].expand(-1, 1, x.shape[-1])
        out: Tensor = self.ln_final(x.gather(1, end)[:, 0]) @ self.text_projection
        return out
