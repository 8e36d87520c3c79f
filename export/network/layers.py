"""Layers that more than one part of the network uses."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channel axis at each pixel, eps 1e-6."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,H,W] -> [B,C,H,W]."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Perceptron(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        """[..., dims[0]] -> [..., dims[-1]]."""
        for layer in self.layers[:-1]:
            x = functional.relu(layer(x))
        last: Tensor = self.layers[-1](x)
        return last


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B,T,D] -> [B,heads,T,D/heads]."""
    return torch.unflatten(x, -1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[B,heads,T,d] -> [B,T,heads*d]."""
    return x.transpose(1, 2).flatten(2)
