"""SAM2CLIP: turns the levels of the CLIP trunk into SAM's image embedding."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.network.layers import LayerNorm2d, merge_heads
from export.variants import AdapterSizes


class RelativeAttention(nn.Module):
    """Self-attention over a square of cells, with SAM's decomposed relative positions (tables shared by the heads)."""

    offsets: Tensor

    def __init__(self, dim: int, heads: int, *, size: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * size - 1, dim // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * size - 1, dim // heads))
        ramp = torch.arange(size)
        self.register_buffer("offsets", ramp[:, None] - ramp[None] + size - 1, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B,S,S,dim] -> [B,S,S,dim]."""
        square = (x.shape[1], x.shape[1])
        qkv = torch.unflatten(self.qkv(x.flatten(1, 2)), -1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv[0], qkv[1], qkv[2]
        grid = torch.unflatten(query, 2, square)
        rows = grid @ self.rel_pos_h[self.offsets].transpose(1, 2)
        columns = (grid.transpose(2, 3) @ self.rel_pos_w[self.offsets].transpose(1, 2)).transpose(2, 3)
        logits = torch.unflatten(torch.unflatten((query * self.scale) @ key.transpose(2, 3), 3, square), 2, square)
        logits = logits + rows[..., :, None] + columns[..., None, :]
        attention = logits.flatten(4).flatten(2, 3).softmax(-1)
        return torch.unflatten(self.proj(merge_heads(attention @ value)), 1, square)


class FeedForward(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden)
        self.lin2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] -> [..., dim]."""
        out: Tensor = self.lin2(functional.gelu(self.lin1(x)))
        return out


class AdapterBlock(nn.Module):
    """A pre-norm transformer block; `window` 0 attends over the whole grid."""

    def __init__(self, sizes: AdapterSizes, *, grid: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(sizes.dim, eps=1e-6)
        self.attn = RelativeAttention(sizes.dim, sizes.heads, size=window or grid)
        self.norm2 = nn.LayerNorm(sizes.dim, eps=1e-6)
        self.mlp = FeedForward(sizes.dim, sizes.mlp_dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B,G,G,dim] -> [B,G,G,dim]."""
        y = self.norm1(x)
        x = x + (self._attend_by_window(y) if self.window else self.attn(y))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out

    def _attend_by_window(self, x: Tensor) -> Tensor:
        grid, window = x.shape[1], self.window
        count = -(-grid // window)
        missing = count * window - grid
        # the padding enters the attention as zero vectors: the weights were trained with it
        x = functional.pad(x, (0, 0, 0, missing, 0, missing))
        split = torch.unflatten(torch.unflatten(x, 2, (count, window)), 1, (count, window))
        attended = self.attn(split.transpose(2, 3).flatten(0, 2))
        x = torch.unflatten(attended, 0, (-1, count, count)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return x[:, :grid, :grid]


class Projection(nn.Module):
    """A strided convolution (or, for C5, its transpose) that brings one level to the embedding's grid."""

    def __init__(self, in_channels: int, dim: int, *, level: int) -> None:
        super().__init__()
        self.projection: nn.Module
        if level < 3:
            reduction = 4 >> level
            self.projection = nn.Conv2d(in_channels, dim, reduction, stride=reduction)
        else:
            self.projection = nn.ConvTranspose2d(in_channels, dim, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,H,W] -> [B,G,G,dim]."""
        y: Tensor = self.projection(x)
        return y.permute(0, 2, 3, 1)


class Adapter(nn.Module):
    """The neck between the trunk and the mask decoder."""

    def __init__(self, level_channels: tuple[int, ...], sizes: AdapterSizes, *, grid: int, out_dim: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, sizes.dim))
        self.patch_embeds = nn.ModuleList(
            Projection(channels, sizes.dim, level=level) for level, channels in enumerate(level_channels)
        )
        self.level_encoding = nn.Embedding(len(level_channels), sizes.dim)
        windows = [sizes.window] * sizes.windowed + [0]
        self.blocks = nn.ModuleList(AdapterBlock(sizes, grid=grid, window=window) for window in windows)
        self.neck = nn.Sequential(
            nn.Conv2d(sizes.dim, out_dim, 1, bias=False),
            LayerNorm2d(out_dim),
            nn.Conv2d(out_dim, out_dim, 3, padding=1, bias=False),
            LayerNorm2d(out_dim),
        )

    def forward(self, levels: list[Tensor]) -> Tensor:
        """C2..C5 -> image embedding [B,out_dim,G,G]."""
        x = self.pos_embed + self.level_encoding.weight.sum(0)
        for embed, level in zip(self.patch_embeds, levels, strict=True):
            x = x + embed(level)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.neck(x.permute(0, 3, 1, 2))
        return out
