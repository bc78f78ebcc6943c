"""grefel-lite: a compact encoder made for int8 on small CPUs, under the same reliability head.

Only 3x3 convolutions, ReLU, residual additions and BatchNorms that follow a convolution (all fold):
every one of these has int8 kernels on ARM and x86.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from training.models.encoder import MapEncoder, halved
from training.models.layers import ConvNorm, initialise_convolutions

# ITU-R BT.601 luma. The data it is trained on is gray; reading luma makes colour photos look the same to it.
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, slots=True)
class LiteSize:
    """Channels and residual blocks of each stage."""

    widths: tuple[int, ...]
    blocks: tuple[int, ...]


# The ladder: 0.30, 1.09 and 2.74 million parameters with the head of eight classes; in int8 the largest still
# fits into 3,000,000 bytes.
SIZES = {
    "grefel-lite-s": LiteSize((24, 40, 80), (2, 2, 2)),
    "grefel-lite": LiteSize((32, 80, 160), (2, 2, 2)),
    "grefel-lite-l": LiteSize((48, 128, 256), (2, 2, 2)),
}


class ResidualBlock(nn.Module):
    """conv-BN-ReLU-conv-BN plus shortcut, ReLU."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels_in, channels, stride=stride)
        self.conv2 = ConvNorm(channels, channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels_in != channels:
            self.shortcut = ConvNorm(channels_in, channels, kernel=1, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, Cin, H, W) to (B, C, H / stride, W / stride)."""
        y = self.conv2(torch.relu(self.conv1(x)))
        return torch.relu(y + self.shortcut(x))


class LiteEncoder(MapEncoder):
    """Plain residual network on luma: faces (B, 3, S, S) to the embedding e (B, widths[-1]).

    The closing BatchNorm on the pooled vector puts e on a known scale, on which the anchors' distances live.
    """

    luma: torch.Tensor

    def __init__(self, *, input_size: int, widths: tuple[int, ...], blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.input_size = input_size
        self.embedding_dim = self.map_channels = widths[-1]
        self.map_size = halved(input_size, len(widths))
        self.register_buffer("luma", torch.tensor(LUMA).reshape(1, 3, 1, 1), persistent=False)
        self.stem = ConvNorm(1, widths[0], stride=2)
        stages = []
        channels_in = widths[0]
        for number, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            first = ResidualBlock(channels_in, width, stride=1 if number == 0 else 2)
            rest = [ResidualBlock(width, width, stride=1) for _ in range(count - 1)]
            stages.append(nn.Sequential(first, *rest))
            channels_in = width
        self.stages = nn.Sequential(*stages)
        self.norm = nn.BatchNorm1d(self.embedding_dim)
        initialise_convolutions(self)

    @property
    def last(self) -> nn.Module:  # type: ignore[override]
        """The last stage, under the name its weights have in checkpoints."""
        return self.stages[-1]

    def stem_of(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised faces (B, 3, S, S) to the input of the stages (B, widths[0], S / 2, S / 2)."""
        gray = (images * self.luma).sum(dim=1, keepdim=True)
        return torch.relu(self.stem(gray))

    def trunk(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised faces (B, 3, S, S) to the input of the last stage (B, widths[-2], S / 4, S / 4)."""
        return self.stages[:-1](self.stem_of(images))  # type: ignore[no-any-return]

    def forward_map(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised faces (B, 3, S, S) to the map (B, D, h, w).

        All stages as one module, because exports name layers by the modules they are called in.
        """
        return self.stages(self.stem_of(images))  # type: ignore[no-any-return]

    def pool(self, maps: torch.Tensor) -> torch.Tensor:
        """Map (B, D, h, w) to embeddings (B, D)."""
        return self.norm(maps.mean(dim=(2, 3)))  # type: ignore[no-any-return]

    def spread(self, maps: torch.Tensor) -> torch.Tensor:
        """Return (B, D, h, w) whose mean over h and w is the embedding in eval mode."""
        n = self.norm
        return torch.nn.functional.batch_norm(
            maps, n.running_mean, n.running_var, n.weight, n.bias, eps=n.eps
        )
