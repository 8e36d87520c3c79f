"""EfficientNet-Lite0 as a frozen feature extractor: batch norms are folded, so a block is three plain convolutions."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

BATCH_NORM_EPSILON = 1e-3
CHANNELS = {4: 24, 8: 40, 16: 112, 32: 320}
HEAD_CHANNELS = 1280
STAGE_END = {2: 4, 4: 8, 10: 16, 15: 32}


@dataclass(frozen=True, slots=True)
class Stage:
    """A run of equal inverted-residual blocks."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class InvertedResidual(nn.Module):
    """Expand, filter per channel, project; ReLU6 between, as the Lite variants do (no squeeze-and-excitation)."""

    def __init__(self, in_channels: int, stage: Stage, *, stride: int) -> None:
        """Stride applies to the depthwise convolution only."""
        super().__init__()
        hidden = in_channels * stage.expansion
        self.expand = nn.Conv2d(in_channels, hidden, 1) if stage.expansion > 1 else None
        self.depthwise = nn.Conv2d(hidden, hidden, stage.kernel, stride, stage.kernel // 2, groups=hidden)
        self.project = nn.Conv2d(hidden, stage.channels, 1)
        self.residual = stride == 1 and in_channels == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        """BxCxHxW -> BxC'xH/stridexW/stride."""
        y = x if self.expand is None else functional.relu6(self.expand(x))
        y = self.project(functional.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class Trunk(nn.Module):
    """Lite0 without its classifier: normalised RGB in, one feature map per stride out."""

    def __init__(self) -> None:
        """Build the published architecture."""
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, 1)
        self.blocks = nn.ModuleList()
        channels = 32
        for stage in STAGES:
            for index in range(stage.blocks):
                self.blocks.append(InvertedResidual(channels, stage, stride=stage.stride if index == 0 else 1))
                channels = stage.channels
        self.head = nn.Conv2d(channels, HEAD_CHANNELS, 1)

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """Bx3xHxW -> {stride: BxCxH/stridexW/stride} for strides 4, 8, 16, 32."""
        x = functional.relu6(self.stem(image))
        maps = {}
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in STAGE_END:
                maps[STAGE_END[index]] = x
        return maps

    def head_features(self, deepest: Tensor) -> Tensor:
        """Stride-32 map -> Bx1280xH/32xW/32, what the ImageNet classifier averages."""
        return functional.relu6(self.head(deepest))


def load_trunk(package: Path) -> tuple[Trunk, Tensor, Tensor]:
    """Trunk with the published weights, and the classifier's weight [1000, 1280] and bias [1000]."""
    state = torch.load(next(package.rglob("*.pth")), map_location="cpu", weights_only=True)
    trunk = Trunk()
    _fold(trunk.stem, state, "_conv_stem", "_bn0")
    _fold(trunk.head, state, "_conv_head", "_bn1")
    for index, block in enumerate(trunk.blocks):
        assert isinstance(block, InvertedResidual)
        prefix = f"_blocks.{index}"
        if block.expand is not None:
            _fold(block.expand, state, f"{prefix}._expand_conv", f"{prefix}._bn0")
        _fold(block.depthwise, state, f"{prefix}._depthwise_conv", f"{prefix}._bn1")
        _fold(block.project, state, f"{prefix}._project_conv", f"{prefix}._bn2")
    return trunk.eval().requires_grad_(requires_grad=False), state["_fc.weight"], state["_fc.bias"]


@torch.no_grad()
def _fold(convolution: nn.Conv2d, state: dict[str, Tensor], name: str, norm: str) -> None:
    scale = state[f"{norm}.weight"] / torch.sqrt(state[f"{norm}.running_var"] + BATCH_NORM_EPSILON)
    convolution.weight.copy_(state[f"{name}.weight"] * scale[:, None, None, None])
    assert convolution.bias is not None
    convolution.bias.copy_(state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale)
