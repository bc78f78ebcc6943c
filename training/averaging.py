"""A moving average of a network's weights: steadier than the weights themselves while the rate is high."""

from __future__ import annotations

import copy

import torch

from training.models import ExpressionNetwork


class WeightAverage:
    """The exponential moving average of a network's weights and statistics, as a network in eval mode."""

    def __init__(self, network: ExpressionNetwork, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False).eval()

    def restart(self, network: ExpressionNetwork) -> None:
        """Set the average to the network's present weights."""
        self.network.load_state_dict(network.state_dict())

    @torch.no_grad()
    def update(self, network: ExpressionNetwork, step: int) -> None:
        """Move the average towards the weights after `step` optimiser steps, the faster the earlier."""
        share = 1.0 - min(self.decay, (1.0 + step) / (10.0 + step))
        for average, value in zip(
            self.network.state_dict().values(), network.state_dict().values(), strict=True
        ):
            if average.is_floating_point():
                average.lerp_(value, share)
            else:
                average.copy_(value)
