"""PReLU in operators that have int8 kernels: neither ONNX Runtime nor XNNPACK has one for PReLU itself."""

from __future__ import annotations

import torch
from torch import nn

from training.models import ExpressionNetwork


class SplitPReLU(nn.Module):
    """A PReLU of slopes a (C,) on (B, C, H, W) as a sum: a x + relu((1 - a) x).

    The factors are depthwise 1x1 convolutions: their int8 kernels have a scale per channel, and take the ReLU
    in. Where a slope is above 1 the sum is a x + (1 - a) relu(x), with one more operator.
    """

    def __init__(self, prelu: nn.PReLU) -> None:
        super().__init__()
        slope = prelu.weight.detach()
        self.slope = scaling(slope)
        self.rest = scaling(1.0 - slope)
        self.convex = bool((slope <= 1.0).all())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to the same shape."""
        if self.convex:
            return self.slope(x) + torch.relu(self.rest(x))
        return self.slope(x) + self.rest(torch.relu(x))


def scaling(factors: torch.Tensor) -> nn.Conv2d:
    """Return the convolution that multiplies each channel by its factor (C,)."""
    channels = len(factors)
    convolution = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
    convolution.weight = nn.Parameter(factors.reshape(channels, 1, 1, 1).clone(), requires_grad=False)
    return convolution


def split_prelus(network: ExpressionNetwork) -> None:
    """Write every PReLU as a sum of products."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.PReLU):
                setattr(parent, name, SplitPReLU(child))
