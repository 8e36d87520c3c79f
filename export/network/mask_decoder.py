"""The mask decoder: SAM's two-way transformer with a label token in place of the IoU and multi-mask tokens."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.network.layers import Perceptron, merge_heads, split_heads
from export.variants import DecoderSizes

# Weight exactly 0 after the softmax in float32 as in float16, and still finite in float16.
_MASKED = -30000.0


class Attention(nn.Module):
    """Multi-head attention whose inner width may be smaller than the tokens'."""

    def __init__(self, dim: int, inner: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (inner // heads) ** -0.5
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *, bias: Tensor | None = None) -> Tensor:
        """[N,Q,dim], [N,K,dim] twice, bias over the keys [N,1,1,K] -> [N,Q,dim]."""
        q = split_heads(self.q_proj(query) * self.scale, self.heads)
        k = split_heads(self.k_proj(key), self.heads)
        v = split_heads(self.v_proj(value), self.heads)
        logits = q @ k.transpose(2, 3)
        if bias is not None:
            logits = logits + bias
        out: Tensor = self.out_proj(merge_heads(logits.softmax(-1) @ v))
        return out


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden)
        self.lin2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] -> [..., dim]."""
        out: Tensor = self.lin2(functional.relu(self.lin1(x)))
        return out


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves and to the image, then the image to the tokens."""

    def __init__(self, sizes: DecoderSizes, *, first: bool) -> None:
        super().__init__()
        dim, heads = sizes.dim, sizes.heads
        self.first = first
        self.self_attn = Attention(dim, dim, heads=heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, dim // 2, heads=heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim, sizes.mlp_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, dim // 2, heads=heads)

    def forward(
        self, tokens: Tensor, image: Tensor, *, start: Tensor, positions: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens [N,T,dim], image [N,G*G,dim]; `start`, the first tokens, serve as their positions throughout."""
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens, bias=bias)
        else:
            placed = tokens + start
            tokens = tokens + self.self_attn(placed, placed, tokens, bias=bias)
        tokens = self.norm1(tokens)
        placed_image = image + positions
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + start, placed_image, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        attended = self.cross_attn_image_to_token(placed_image, tokens + start, tokens, bias=bias)
        return tokens, self.norm4(image + attended)


class TwoWayTransformer(nn.Module):
    """Two two-way blocks and a last look of the tokens at the image."""

    def __init__(self, sizes: DecoderSizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(sizes, first=index == 0) for index in range(2))
        self.final_attn_token_to_image = Attention(sizes.dim, sizes.dim // 2, heads=sizes.heads)
        self.norm_final_attn = nn.LayerNorm(sizes.dim)

    def forward(self, start: Tensor, image: Tensor, *, positions: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [N,T,dim], image [N,G*G,dim], positions [G*G,dim], bias [N,1,1,T] -> tokens and image after."""
        tokens = start
        for layer in self.layers:
            tokens, image = layer(tokens, image, start=start, positions=positions, bias=bias)
        attended = self.final_attn_token_to_image(tokens + start, image + positions, image)
        return self.norm_final_attn(tokens + attended), image


class Upscaling(nn.Module):
    """Two transposed convolutions with kernel = stride = 2, kept in token layout.

    Such a convolution is one linear map per cell: no channel-first copy is needed, and the norm runs on the last axis.
    """

    def __init__(self, dim: int, middle: int, out: int) -> None:
        super().__init__()
        self.first = nn.ConvTranspose2d(dim, middle, 2, stride=2)
        self.norm = nn.LayerNorm(middle, eps=1e-6)
        self.second = nn.ConvTranspose2d(middle, out, 2, stride=2)

    def forward(self, image: Tensor) -> Tensor:
        """[N,G*G,dim] -> [N,G*G,4,4,out]: the four sub-cells of each cell, then the four of each of those."""
        x = functional.gelu(self.norm(_expand(image, self.first)))
        return functional.gelu(_expand(x, self.second))


def _expand(x: Tensor, deconvolution: nn.ConvTranspose2d) -> Tensor:
    """[...,in] -> [...,4,out]."""
    weight = deconvolution.weight.permute(0, 2, 3, 1)
    expanded = torch.unflatten(x @ weight.flatten(1), -1, (4, -1))
    bias = deconvolution.bias
    return expanded if bias is None else expanded + bias


class MaskDecoder(nn.Module):
    """One mask for each prompt; the label token takes part in the attention but is not read."""

    def __init__(self, sizes: DecoderSizes, *, grid: int) -> None:
        super().__init__()
        dim = sizes.dim
        self.grid = grid
        self.label_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(1, dim)
        self.transformer = TwoWayTransformer(sizes)
        self.upscaling = Upscaling(dim, dim // 4, sizes.mask_channels)
        self.hypernetwork = Perceptron(dim, dim, dim, sizes.mask_channels)

    def forward(self, image: Tensor, positions: Tensor, *, prompts: Tensor, valid: Tensor) -> Tensor:
        """Image + dense prompt [N,dim,G,G], positions [G*G,dim], prompt tokens [N,T,dim], valid [N,T] -> [N,4G,4G]."""
        own = torch.cat([self.label_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(prompts.shape[0], -1, -1), prompts], dim=1)
        bias = functional.pad(torch.where(valid, 0.0, _MASKED), (own.shape[0], 0)).to(tokens.dtype)[:, None, None]
        tokens, cells = self.transformer(tokens, image.flatten(2).transpose(1, 2), positions=positions, bias=bias)
        return self.combine(tokens, self.upscaling(cells))

    def combine(self, tokens: Tensor, upscaled: Tensor) -> Tensor:
        """Tokens [N,T,dim] and upscaled cells [N,G*G,4,4,out] -> mask logits [N,4G,4G]."""
        weights: Tensor = self.hypernetwork(tokens[:, 1])
        logits = upscaled.flatten(1, 3) @ weights[:, :, None]
        return unfold_cells(logits, grid=self.grid)[:, 0]


def unfold_cells(x: Tensor, *, grid: int) -> Tensor:
    """[N,G*G*4*4,C] in the order of `Upscaling` -> [N,C,4G,4G]."""
    x = torch.unflatten(x, 1, (grid, grid, 2, 2, 2, 2)).permute(0, 7, 1, 3, 5, 2, 4, 6)
    return x.flatten(5, 7).flatten(2, 4)
