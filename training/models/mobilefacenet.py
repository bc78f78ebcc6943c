"""The landmark branch: MobileFaceNet up to its last 1x1 convolution, with the three taps GReFEL reads.

The global depthwise layer and the 136 landmark outputs behind tap 3 are discarded by GReFEL and not built.
"""

from __future__ import annotations

import torch
from torch import nn

from training.models.layers import initialise_convolutions


class ConvBlock(nn.Sequential):
    """Convolution without bias, BatchNorm, PReLU (left out in a "linear" block)."""

    def __init__(
        self,
        channels_in: int,
        channels: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(channels_in, channels, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
            nn.BatchNorm2d(channels),
        ]
        if not linear:
            layers.append(nn.PReLU(channels))
        super().__init__(*layers)


class Bottleneck(nn.Module):
    """1x1 expansion, depthwise 3x3, linear 1x1 projection; the residual sum has no activation."""

    def __init__(
        self, channels_in: int, channels: int, groups: int, *, stride: int = 1, residual: bool = False
    ) -> None:
        super().__init__()
        self.expand = ConvBlock(channels_in, groups, 1)
        self.depthwise = ConvBlock(groups, groups, 3, stride=stride, groups=groups)
        self.project = ConvBlock(groups, channels, 1, linear=True)
        self.residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, Cin, H, W) to (B, C, H / stride, W / stride)."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class MobileFaceNetTrunk(nn.Module):
    """MobileFaceNet for 68 landmarks: taps of 64 x 28 x 28, 128 x 14 x 14 and 512 x 7 x 7."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBlock(3, 64, 3, stride=2)
        self.stem_depthwise = ConvBlock(64, 64, 3, groups=64)
        self.down1 = Bottleneck(64, 64, 128, stride=2)
        self.blocks1 = nn.Sequential(*(Bottleneck(64, 64, 128, residual=True) for _ in range(4)))
        self.down2 = Bottleneck(64, 128, 256, stride=2)
        self.blocks2 = nn.Sequential(*(Bottleneck(128, 128, 256, residual=True) for _ in range(6)))
        self.down3 = Bottleneck(128, 128, 512, stride=2)
        self.blocks3 = nn.Sequential(*(Bottleneck(128, 128, 256, residual=True) for _ in range(2)))
        self.last = ConvBlock(128, 512, 1)
        initialise_convolutions(self)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Map (B, 3, 112, 112) to the taps (B, 64, 28, 28), (B, 128, 14, 14), (B, 512, 7, 7)."""
        tap1 = self.blocks1(self.down1(self.stem_depthwise(self.stem(x))))
        tap2 = self.blocks2(self.down2(tap1))
        tap3 = self.last(self.blocks3(self.down3(tap2)))
        return tap1, tap2, tap3
