"""The layer that most convolutional networks here are made of, and how its weights begin."""

from __future__ import annotations

from torch import nn


class ConvNorm(nn.Sequential):
    """Convolution without bias that keeps the map's size but for its stride, and BatchNorm."""

    def __init__(
        self, channels_in: int, channels: int, kernel: int = 3, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(channels),
        )


def initialise_convolutions(network: nn.Module) -> None:
    """Draw the weights of every convolution as He et al. 2015 do: normal, by the fan-out, for ReLUs."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
