"""Linear layers on two axes: one fused int8 kernel for product and bias, where three axes would take two."""

from __future__ import annotations

import torch
from torch import nn

from training.models import ExpressionNetwork


class FlatLinear(nn.Module):
    """A linear layer that sees its input (..., in) as (rows, in)."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., in) to (..., out)."""
        rows = self.linear(x.reshape(-1, x.shape[-1]))
        return rows.reshape(*x.shape[:-1], rows.shape[-1])


def flatten_linears(network: ExpressionNetwork) -> None:
    """Let every linear layer of the encoder work on two axes."""
    for parent in list(network.encoder.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear):
                setattr(parent, name, FlatLinear(child))
