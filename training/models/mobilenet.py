"""MobileNet V1 (Howard et al. 2017) and V2 (Sandler et al. 2018), both at width 1."""

from __future__ import annotations

import torch
from torch import nn

from training.models.encoder import MapEncoder, halved, is_small
from training.models.layers import ConvNorm, initialise_convolutions

STEM = 32
# V1: channels and stride of each separable convolution.
SEPARABLE = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)
# V2: expansion, channels, blocks, stride of the first.
INVERTED = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
V2_CHANNELS = 1280


class ConvNormReLU6(nn.Sequential):
    """Convolution without bias, BatchNorm, ReLU6."""

    def __init__(
        self, channels_in: int, channels: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU6(),
        )


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise 3x3, linear 1x1 projection; added to the input where the shapes agree.

    An expansion of 1 is left out.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = channels_in * expansion
        self.residual = stride == 1 and channels_in == channels
        self.conv = nn.Sequential(
            *([ConvNormReLU6(channels_in, width, 1)] if expansion > 1 else []),
            ConvNormReLU6(width, width, 3, stride=stride, groups=width),
            nn.Conv2d(width, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, Cin, H, W) to (B, C, H / stride, W / stride)."""
        y = self.conv(x)
        return x + y if self.residual else y


class SeparableUnit(nn.Sequential):
    """Depthwise 3x3 and 1x1 convolution, each with BatchNorm and ReLU."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__(
            ConvNorm(channels_in, channels_in, stride=stride, groups=channels_in),
            nn.ReLU(),
            ConvNorm(channels_in, channels, 1),
            nn.ReLU(),
        )


class MobileNetV1Encoder(MapEncoder):
    """MobileNet V1 up to its last map: faces (B, 3, S, S) to embeddings (B, 1024).

    The map is S / 32 wide, 7 x 7 of 224 pixels; up to 64 pixels the stem has stride 1 and it is S / 16.
    """

    def __init__(self, *, input_size: int) -> None:
        super().__init__()
        small = is_small(input_size)
        self.embedding_dim = self.map_channels = SEPARABLE[-1][0]
        self.map_size = halved(input_size, 4 if small else 5)
        self.stem = ConvNorm(3, STEM, stride=1 if small else 2)
        units = []
        channels_in = STEM
        for channels, stride in SEPARABLE:
            units.append(SeparableUnit(channels_in, channels, stride))
            channels_in = channels
        self.units = nn.Sequential(*units[:-2])
        self.last = nn.Sequential(*units[-2:])
        initialise_convolutions(self)

    def trunk(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised faces (B, 3, S, S) to the input of the last stage (B, 512, h', w')."""
        return self.units(torch.relu(self.stem(images)))  # type: ignore[no-any-return]


class MobileNetV2Encoder(MapEncoder):
    """MobileNet V2 up to its last map: faces (B, 3, S, S) to embeddings (B, 1280).

    The map is S / 32 wide, 7 x 7 of 224 pixels; up to 64 pixels the stem has stride 1 and it is S / 16. The
    `last` are two stages, those of 160 and 320 channels, and the closing 1x1 convolution: DMUE splits there.
    """

    def __init__(self, *, input_size: int) -> None:
        super().__init__()
        small = is_small(input_size)
        self.embedding_dim = self.map_channels = V2_CHANNELS
        self.map_size = halved(input_size, 4 if small else 5)
        self.stem = ConvNormReLU6(3, STEM, 3, stride=1 if small else 2)
        stages = []
        channels_in = STEM
        for expansion, channels, blocks, stride in INVERTED:
            stage = []
            for number in range(blocks):
                stage.append(InvertedResidual(channels_in, channels, stride if number == 0 else 1, expansion))
                channels_in = channels
            stages.append(nn.Sequential(*stage))
        self.stages = nn.Sequential(*stages[:-2])
        self.last = nn.Sequential(*stages[-2:], ConvNormReLU6(channels_in, V2_CHANNELS, 1))
        initialise_convolutions(self)

    def trunk(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised faces (B, 3, S, S) to the input of the last two stages (B, 96, h', w')."""
        return self.stages(self.stem(images))  # type: ignore[no-any-return]
