"""What an encoder is: normalised faces in, one embedding per face out, mostly by way of a feature map."""

from __future__ import annotations

import torch
from torch import nn


class MapEncoder(nn.Module):
    """An encoder whose embedding is the mean of a feature map, in three steps: trunk, last stage, pooling.

    Methods that look at the map (class attention maps, heads with attention of their own) or that need the
    last stage several times (DMUE) take the steps one by one. Subclasses set the three attributes and
    implement `trunk`.

    Attributes:
        embedding_dim: D, the width of the embedding.
        map_channels: C of the map.
        last: the last stage: (B, C', h', w') to the map (B, C, h, w).
    """

    embedding_dim: int
    map_channels: int
    last: nn.Module

    def trunk(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised faces (B, 3, S, S) to the input of the last stage (B, C', h', w')."""
        raise NotImplementedError

    def pool(self, maps: torch.Tensor) -> torch.Tensor:
        """Map (B, C, h, w) to embeddings (B, D)."""
        return maps.mean(dim=(2, 3))

    def spread(self, maps: torch.Tensor) -> torch.Tensor:
        """Return (B, D, h, w) whose mean over h and w is the embedding in eval mode.

        What pooling does to the mean is done to every position, with running statistics.
        """
        return maps

    def forward_map(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised faces (B, 3, S, S) to the map (B, C, h, w)."""
        return self.last(self.trunk(images))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised faces (B, 3, S, S) to embeddings (B, D)."""
        return self.pool(self.forward_map(images))
