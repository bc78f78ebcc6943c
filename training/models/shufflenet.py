"""ShuffleNet V1 with three groups and twice the width, 2.0x (Zhang et al. 2018): the one DMUE reports."""

from __future__ import annotations

import torch
from torch import nn

from training.models.encoder import MapEncoder, halved, is_small
from training.models.layers import ConvNorm, initialise_convolutions

GROUPS = 3
STEM = 48
# channels, units
STAGES = ((480, 4), (960, 8), (1920, 4))


def shuffle_channels(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Deal the channels of (B, C, H, W) out: the first of every group, then the second of every group ..."""
    batch, channels, height, width = x.shape
    grouped = x.reshape(batch, groups, channels // groups, height * width)
    return grouped.transpose(1, 2).reshape(batch, channels, height, width)


class ShuffleUnit(nn.Module):
    """Grouped 1x1 to a quarter of the width, shuffle, depthwise 3x3, grouped 1x1; added to the input.

    With stride 2 it is set beside the averaged input instead, and gives only the channels that are missing.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, *, groups_in: int = GROUPS) -> None:
        super().__init__()
        width = channels // 4
        self.reduce = ConvNorm(channels_in, width, 1, groups=groups_in)
        self.depthwise = ConvNorm(width, width, stride=stride, groups=width)
        self.expand = ConvNorm(width, channels - (channels_in if stride == 2 else 0), 1, groups=GROUPS)
        self.average = nn.AvgPool2d(3, 2, 1) if stride == 2 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, Cin, H, W) to (B, C, H / stride, W / stride)."""
        y = shuffle_channels(torch.relu(self.reduce(x)), GROUPS)
        y = self.expand(self.depthwise(y))
        if self.average is None:
            return torch.relu(x + y)
        return torch.relu(torch.cat([self.average(x), y], dim=1))


class ShuffleNetEncoder(MapEncoder):
    """ShuffleNet V1 up to its last map: faces (B, 3, S, S) to embeddings (B, 1920).

    The map is S / 32 wide, 7 x 7 of 224 pixels; up to 64 pixels there is no max-pooling and it is S / 16.
    """

    def __init__(self, *, input_size: int) -> None:
        super().__init__()
        small = is_small(input_size)
        self.embedding_dim = self.map_channels = STAGES[-1][0]
        self.map_size = halved(input_size, 4 if small else 5)
        self.stem = ConvNorm(3, STEM, stride=2)
        self.pooling: nn.Module = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        stages = []
        channels_in = STEM
        for channels, units in STAGES:
            # The input of the very first unit is too narrow for groups.
            first = ShuffleUnit(channels_in, channels, 2, groups_in=1 if channels_in == STEM else GROUPS)
            stages.append(
                nn.Sequential(first, *(ShuffleUnit(channels, channels, 1) for _ in range(units - 1)))
            )
            channels_in = channels
        *early, self.last = stages
        self.stages = nn.Sequential(*early)
        initialise_convolutions(self)

    def trunk(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised faces (B, 3, S, S) to the input of the last stage (B, 960, h', w')."""
        return self.stages(self.pooling(torch.relu(self.stem(images))))  # type: ignore[no-any-return]
