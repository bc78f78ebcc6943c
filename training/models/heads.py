"""The heads without reliability balancing: `probabilities` equal `primary`, both with the temperature.

A `temperature` T other than 1 divides the logits after training. Heads with `takes_map` read the encoder's
map instead of its embedding.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from training.models.balancing import HeadOutput
from training.models.layers import initialise_convolutions


class PlainHead(nn.Module):
    """A head that ends in logits, and nothing after them but the temperature.

    Attributes:
        takes_map: whether it is called with maps (B, C, h, w) instead of embeddings (B, D).
    """

    takes_map: ClassVar[bool] = False

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def answer(self, logits: torch.Tensor, embedding: torch.Tensor) -> HeadOutput:
        """Return softmax(logits / T) of (B, N) beside what it was read from, (B, D)."""
        primary = (logits if self.temperature == 1.0 else logits / self.temperature).softmax(dim=-1)
        none = torch.zeros(embedding.shape[0], device=embedding.device)
        return HeadOutput(primary, primary, embedding, none, none, None, None, logits)


class LinearHead(PlainHead):
    """POSTER++'s head: one linear layer."""

    def __init__(self, dim: int, classes: int, *, temperature: float = 1.0) -> None:
        super().__init__(temperature)
        self.linear = nn.Linear(dim, classes)

    def forward(self, embedding: torch.Tensor) -> HeadOutput:
        """Map e (B, D) to softmax((W e + b) / T)."""
        return self.answer(self.linear(embedding), embedding)


class ScaledHead(PlainHead):
    """SCN's head: the logits of a face are multiplied by its importance alpha = sigmoid(v e + c)."""

    def __init__(self, dim: int, classes: int, *, temperature: float = 1.0) -> None:
        super().__init__(temperature)
        self.linear = nn.Linear(dim, classes)
        self.scale = nn.Linear(dim, 1)

    def importance(self, embedding: torch.Tensor) -> torch.Tensor:
        """Map e (B, D) to alpha (B,), in 0..1."""
        return torch.sigmoid(self.scale(embedding)).squeeze(1)

    def forward(self, embedding: torch.Tensor) -> HeadOutput:
        """Map e (B, D) to softmax(alpha (W e + b) / T)."""
        return self.answer(self.importance(embedding)[:, None] * self.linear(embedding), embedding)


class MapVector(nn.Sequential):
    """RUL's reading of a map: BatchNorm without weights, dropout, one linear layer, BatchNorm.

    The head's own gives the mean mu; a method that needs a log-variance makes another one.
    """

    WIDTH = 64

    def __init__(self, map_channels: int, map_size: int) -> None:
        super().__init__(
            nn.BatchNorm2d(map_channels, affine=False),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(map_channels * map_size * map_size, self.WIDTH),
            nn.BatchNorm1d(self.WIDTH),
        )


class RulHead(PlainHead):
    """RUL's head at inference: one linear layer on mu (B, 64), which is the embedding."""

    takes_map = True

    def __init__(self, map_channels: int, map_size: int, classes: int, *, temperature: float = 1.0) -> None:
        super().__init__(temperature)
        self.mean = MapVector(map_channels, map_size)
        self.linear = nn.Linear(MapVector.WIDTH, classes)

    def forward(self, maps: torch.Tensor) -> HeadOutput:
        """Map (B, C, h, w) to softmax((W mu + b) / T)."""
        embedding = self.mean(maps)
        return self.answer(self.linear(embedding), embedding)


class CrossAttentionHead(nn.Module):
    """One of DAN's heads: a mask over the map, then a gate over the channels of its mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width, narrow = channels // 2, max(channels // 16, 1)
        self.reduce = nn.Sequential(nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width))
        self.square = branch(width, channels, (3, 3))
        self.row = branch(width, channels, (1, 3))
        self.column = branch(width, channels, (3, 1))
        self.gate = nn.Sequential(
            nn.Linear(channels, narrow),
            nn.BatchNorm1d(narrow),
            nn.ReLU(),
            nn.Linear(narrow, channels),
            nn.Sigmoid(),
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map (B, C, h, w) to (B, C)."""
        reduced = self.reduce(maps)
        mask = torch.relu(self.square(reduced) + self.row(reduced) + self.column(reduced))
        attended = (maps * mask.sum(dim=1, keepdim=True)).mean(dim=(2, 3))
        return attended * self.gate(attended)  # type: ignore[no-any-return]


def branch(channels_in: int, channels: int, kernel: tuple[int, int]) -> nn.Sequential:
    """Return a convolution that keeps the map's size, and BatchNorm."""
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Sequential(nn.Conv2d(channels_in, channels, kernel, padding=padding), nn.BatchNorm2d(channels))


class DanHead(PlainHead):
    """DAN's head: four cross attentions, log-softmax over them, their sum, and BatchNorm on the logits."""

    takes_map = True
    COUNT = 4

    def __init__(self, map_channels: int, map_size: int, classes: int, *, temperature: float = 1.0) -> None:
        super().__init__(temperature)
        self.attentions = nn.ModuleList(CrossAttentionHead(map_channels) for _ in range(self.COUNT))
        self.linear = nn.Linear(map_channels, classes)
        self.norm = nn.BatchNorm1d(classes)
        initialise_convolutions(self)

    def attend(self, maps: torch.Tensor) -> torch.Tensor:
        """Map (B, C, h, w) to what the four heads say, (B, 4, C), log-softmax over the heads."""
        return torch.stack([attention(maps) for attention in self.attentions], dim=1).log_softmax(dim=1)

    def classify(self, attended: torch.Tensor) -> HeadOutput:
        """Map the heads' vectors (B, 4, C) to softmax(BN(W e + b) / T) of their sum e."""
        embedding = attended.sum(dim=1)
        return self.answer(self.norm(self.linear(embedding)), embedding)

    def forward(self, maps: torch.Tensor) -> HeadOutput:
        """Map (B, C, h, w) to the distribution."""
        return self.classify(self.attend(maps))
