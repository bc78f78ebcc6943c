"""The image branch: IR-50 (face.evoLVe), first three stages only.

Stage 4 and the embedding layer of the published network are never used by GReFEL and are not built.
"""

from __future__ import annotations

import torch
from torch import nn

STAGES = ((64, 3), (128, 4), (256, 14))


class ImprovedResidualUnit(nn.Module):
    """BN - conv3x3 - PReLU - conv3x3 (stride) - BN, plus a shortcut; no activation after the sum."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.norm_in = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        self.prelu = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.norm_out = nn.BatchNorm2d(channels)
        if channels_in == channels:
            # Max-pooling with kernel 1 is plain subsampling.
            self.shortcut: nn.Module = nn.MaxPool2d(1, stride) if stride > 1 else nn.Identity()
        else:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, Cin, H, W) to (B, C, H / stride, W / stride)."""
        y = self.conv2(self.prelu(self.conv1(self.norm_in(x))))
        return self.norm_out(y) + self.shortcut(x)


class IResNet50Trunk(nn.Module):
    """IR-50 stem and stages 1-3 (POSTER++ / GReFEL, section 3): three feature maps of one 112-pixel face."""

    def __init__(self) -> None:
        super().__init__()
        self.stem_conv = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(64)
        self.stem_prelu = nn.PReLU(64)
        channels_in = 64
        stages = []
        for channels, units in STAGES:
            first = ImprovedResidualUnit(channels_in, channels, stride=2)
            rest = [ImprovedResidualUnit(channels, channels, stride=1) for _ in range(units - 1)]
            stages.append(nn.Sequential(first, *rest))
            channels_in = channels
        self.stage1, self.stage2, self.stage3 = stages

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Map (B, 3, 112, 112) to (B, 64, 56, 56), (B, 128, 28, 28), (B, 256, 14, 14)."""
        x = self.stem_prelu(self.stem_norm(self.stem_conv(x)))
        map1 = self.stage1(x)
        map2 = self.stage2(map1)
        return map1, map2, self.stage3(map2)
