"""ResNet-18, 50 and 101, and ResNet-50 with instance normalisation (IBN-a).

He et al. 2016, with the stride of a bottleneck in its 3x3 convolution as in most released weights: that is
where 4.1 and 7.8 billion multiply-adds come from; the paper prints 3.8 and 7.6 for a stride in the first 1x1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from training.models.encoder import MapEncoder, halved, is_small
from training.models.layers import ConvNorm, initialise_convolutions

WIDTHS = (64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class Layout:
    """Residual units of each stage, of which kind, and whether the first three stages have IBN-a."""

    units: tuple[int, int, int, int]
    bottleneck: bool
    instance: bool = False


RESNETS = {
    "resnet18": Layout((2, 2, 2, 2), bottleneck=False),
    "resnet50": Layout((3, 4, 6, 3), bottleneck=True),
    "resnet101": Layout((3, 4, 23, 3), bottleneck=True),
    "resnet50_ibn": Layout((3, 4, 6, 3), bottleneck=True, instance=True),
}


class InstanceBatchNorm(nn.Module):
    """IBN-a (Pan et al. 2018): the first half of the channels by instance, the second half by batch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.by_instance = channels // 2
        self.instance = nn.InstanceNorm2d(self.by_instance, affine=True)
        self.batch = nn.BatchNorm2d(channels - self.by_instance)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to the same shape."""
        return torch.cat(
            [self.instance(x[:, : self.by_instance]), self.batch(x[:, self.by_instance :])], dim=1
        )


class BasicUnit(nn.Module):
    """conv-BN-ReLU-conv-BN plus shortcut, ReLU."""

    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels_in, width, stride=stride)
        self.conv2 = ConvNorm(width, width)
        self.shortcut = shortcut(channels_in, width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, Cin, H, W) to (B, width, H / stride, W / stride)."""
        y = self.conv2(torch.relu(self.conv1(x)))
        return torch.relu(y + self.shortcut(x))


class BottleneckUnit(nn.Module):
    """1x1 reduction, 3x3 with the stride, 1x1 expansion to four widths, plus shortcut, ReLU."""

    expansion = 4

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels_in, width, 1)
        self.conv2 = ConvNorm(width, width, stride=stride)
        self.conv3 = ConvNorm(width, width * self.expansion, 1)
        self.shortcut = shortcut(channels_in, width * self.expansion, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, Cin, H, W) to (B, 4 width, H / stride, W / stride)."""
        y = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return torch.relu(self.conv3(y) + self.shortcut(x))


def shortcut(channels_in: int, channels: int, stride: int) -> nn.Module:
    """Return the way around a unit: a 1x1 convolution where the shape changes."""
    if stride == 1 and channels_in == channels:
        return nn.Identity()
    return ConvNorm(channels_in, channels, 1, stride)


class ResNetEncoder(MapEncoder):
    """ResNet up to its last map: faces (B, 3, S, S) to embeddings (B, 512), or (B, 2048) of bottlenecks.

    The map is S / 32 wide, 7 x 7 of 224 pixels; up to 64 pixels there is no max-pooling and it is S / 16.
    """

    def __init__(self, *, input_size: int, layout: Layout) -> None:
        super().__init__()
        kind = BottleneckUnit if layout.bottleneck else BasicUnit
        small = is_small(input_size)
        self.embedding_dim = self.map_channels = WIDTHS[-1] * kind.expansion
        self.map_size = halved(input_size, 4 if small else 5)
        self.stem = ConvNorm(3, WIDTHS[0], 7, stride=2)
        self.reduce: nn.Module = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        stages: list[nn.Sequential] = []
        channels_in = WIDTHS[0]
        for width, count in zip(WIDTHS, layout.units, strict=True):
            first = kind(channels_in, width, stride=2 if stages else 1)
            channels_in = width * kind.expansion
            stages.append(
                nn.Sequential(first, *(kind(channels_in, width, stride=1) for _ in range(count - 1)))
            )
        *early, self.last = stages
        if layout.instance:
            for width, stage in zip(WIDTHS, early, strict=False):
                for unit in stage:
                    assert isinstance(unit, BasicUnit | BottleneckUnit)
                    unit.conv1[1] = InstanceBatchNorm(width)
        self.stages = nn.Sequential(*early)
        initialise_convolutions(self)

    def trunk(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised faces (B, 3, S, S) to the input of the last stage (B, 256 or 1024, h', w')."""
        return self.stages(self.reduce(torch.relu(self.stem(images))))  # type: ignore[no-any-return]
