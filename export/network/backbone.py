"""CLIP's modified ResNet without its pooling: the frozen trunk that every other part reads."""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from export.variants import TrunkSizes

_EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions; all of stride 1, since CLIP reduces by average pooling behind the 3x3."""

    def __init__(self, in_channels: int, inner: int, *, stride: int) -> None:
        super().__init__()
        out_channels = inner * _EXPANSION
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(inner, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = (
            None
            if stride == 1 and in_channels == out_channels
            else nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B,in,H,W] -> [B,4*inner,H/stride,W/stride]."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.pool(functional.relu(self.bn2(self.conv2(y))))
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(self.pool(x))
        return functional.relu(y + shortcut)


class Backbone(nn.Module):
    """Stem of three convolutions and four stages of bottlenecks."""

    def __init__(self, sizes: TrunkSizes) -> None:
        super().__init__()
        half = sizes.width // 2
        self.conv1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, sizes.width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(sizes.width)
        self.pool = nn.AvgPool2d(2)
        channels = sizes.width
        for index, count in enumerate(sizes.blocks):
            inner = sizes.width << index
            stage = _stage(channels, inner, count=count, stride=1 if index == 0 else 2)
            self.add_module(f"layer{index + 1}", stage)
            channels = inner * _EXPANSION

    def forward(self, x: Tensor) -> list[Tensor]:
        """Normalised image [B,3,S,S] -> C2, C3, C4, C5, [B,C,S/stride,S/stride] at strides 4, 8, 16, 32."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        x = self.pool(functional.relu(self.bn3(self.conv3(x))))
        levels = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = cast(nn.Sequential, stage)(x)
            levels.append(x)
        return levels


def _stage(in_channels: int, inner: int, *, count: int, stride: int) -> nn.Sequential:
    first = Bottleneck(in_channels, inner, stride=stride)
    return nn.Sequential(first, *(Bottleneck(inner * _EXPANSION, inner, stride=1) for _ in range(count - 1)))
