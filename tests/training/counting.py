"""How many parameters and multiply-adds a network has, counted by torch, also on the meta device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count(*modules: nn.Module | nn.Parameter) -> int:
    """Return the number of parameters."""
    return sum(
        sum(p.numel() for p in m.parameters()) if isinstance(m, nn.Module) else m.numel() for m in modules
    )


def multiply_adds(network: Callable[[torch.Tensor], object], images: torch.Tensor) -> int:
    """Return the multiply-adds of convolutions, linear layers and products of matrices."""
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        network(images)
    return counter.get_total_flops() // 2
