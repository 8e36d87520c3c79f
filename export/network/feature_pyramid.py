"""The feature pyramid that region labels are read from: no norm and no activation anywhere."""

from torch import Tensor, nn
from torch.nn import functional


class FeaturePyramid(nn.Module):
    """Lateral 1x1, top-down sum with nearest upsampling, 3x3 output, for four levels."""

    def __init__(self, level_channels: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(channels, dim, 1) for channels in level_channels)
        self.output = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in level_channels)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """C2..C5 -> P2..P5, [B,dim,S/stride,S/stride] each."""
        merged: list[Tensor] = [lateral(x) for lateral, x in zip(self.lateral, levels, strict=True)]
        for i in range(len(merged) - 1, 0, -1):
            merged[i - 1] = merged[i - 1] + functional.interpolate(merged[i], scale_factor=2.0, mode="nearest")
        return [output(x) for output, x in zip(self.output, merged, strict=True)]
