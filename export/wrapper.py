"""The fused module: from uint8 pixels to the corrected distribution in one graph."""

from __future__ import annotations

import torch
from torch import nn

from training.models import ExpressionNetwork
from training.models.balancing import confidence

INPUT = "image"
OUTPUTS = ("probabilities", "primary", "reliability", "embedding")


class FusedGraph(nn.Module):
    """Layout change, normalisation, encoder and reliability balancing.

    Input `image`: uint8 (N, S, S, 3) RGB 0..255. Outputs: `probabilities` (N, C), `primary` (N, C),
    `reliability` (N,) = 1 - H(probabilities) / log C, `embedding` (N, D), all float32.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, network: ExpressionNetwork) -> None:
        super().__init__()
        self.network = network
        spec = network.spec
        mean = torch.tensor(spec.mean, dtype=torch.float64) * 255.0
        scale = 1.0 / (torch.tensor(spec.std, dtype=torch.float64) * 255.0)
        self.register_buffer("mean", mean.float().reshape(1, 3, 1, 1))
        self.register_buffer("scale", scale.float().reshape(1, 3, 1, 1))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Map uint8 faces (N, S, S, 3) to probabilities, primary, reliability and embedding."""
        faces = (image.permute(0, 3, 1, 2).float() - self.mean) * self.scale
        # The network's own forward keeps autocast away from the head; here everything is float32, and in that
        # block the exporter would forget which of the head's modules a node comes from.
        output = self.network.head(self.network.head_input(faces))
        reliability = confidence(output.probabilities)
        return output.probabilities, output.primary, reliability, output.embedding
