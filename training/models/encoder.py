"""What an encoder is: normalised faces in, one embedding per face out, mostly by way of a feature map."""

from __future__ import annotations

import torch
from torch import nn

# A face of this many pixels would shrink to 2 x 2 in a network that was made for 224.
SMALL_FACE = 64


def is_small(input_size: int) -> bool:
    """Tell whether faces are so small that a network leaves out one of the first two halvings.

    Networks made for ImageNet halve a map five times: 224 pixels become 7 x 7. Up to 64 pixels their second
    halving is left out (the first, where the second one belongs to a stage), and the map of 64 pixels is
    4 x 4. That changes no weight's shape: what was trained at one size can be loaded at any.
    """
    return input_size <= SMALL_FACE


def halved(size: int, times: int) -> int:
    """Return the side of a map after so many convolutions of stride 2 that pad: each rounds up."""
    for _ in range(times):
        size = (size + 1) // 2
    return size


class MapEncoder(nn.Module):
    """An encoder whose embedding is the mean of a feature map, in three steps: trunk, last stage, pooling.

    Methods that look at the map (class attention maps, heads with attention of their own) or that need the
    last stage several times (DMUE) take the steps one by one. Subclasses set the four attributes and
    implement `trunk`.

    Attributes:
        embedding_dim: D, the width of the embedding.
        map_channels: C of the map.
        map_size: h and w of the map of a face of the size that the encoder was built for.
        last: the last stage: (B, C', h', w') to the map (B, C, h, w).
    """

    embedding_dim: int
    map_channels: int
    map_size: int
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

    def forward(self, images: torch.Tensor, *, pooled: bool = True) -> torch.Tensor:
        """Map normalised faces (B, 3, S, S) to embeddings (B, D), or to the map where it is not to be pooled.

        The same map as `forward_map` gives; but a graph that is traced through here knows whose it is.
        """
        maps = self.forward_map(images)
        return self.pool(maps) if pooled else maps
