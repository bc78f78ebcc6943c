"""LayerScale, folded into the linear layer in front of it."""

from __future__ import annotations

import torch
from torch import nn

from training.models import ExpressionNetwork
from training.models.cross_attention import CrossFusionLevel, merge_windows, partition_windows


def fold_layer_scales(network: ExpressionNetwork) -> None:
    """Multiply the last linear layer of every residual branch by the branch's LayerScale."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, CrossFusionLevel):
                setattr(parent, name, ScaledLevel(child))


class ScaledLevel(nn.Module):
    """`CrossFusionLevel` at inference, its LayerScales in its weights."""

    def __init__(self, level: CrossFusionLevel) -> None:
        super().__init__()
        self.window = level.window
        self.down, self.norm, self.norm_mlp = level.down, level.norm, level.norm_mlp
        self.attention, self.mlp = level.attention, level.mlp
        scale_outputs(self.attention.project, level.scale1)
        last = self.mlp[2]
        assert isinstance(last, nn.Linear)
        scale_outputs(last, level.scale2)

    def forward(self, image: torch.Tensor, landmark: torch.Tensor) -> torch.Tensor:
        """Fuse an image map (B, C, 2H, 2W) with a landmark tap (B, C, w, w) into (B, C, H, W)."""
        shortcut = self.norm(self.down(image).permute(0, 2, 3, 1))
        _, height, width, _ = shortcut.shape
        query = landmark.permute(0, 2, 3, 1).flatten(1, 2)
        attended = self.attention(partition_windows(shortcut, self.window), query)
        x = shortcut + merge_windows(attended, height, width, self.window)
        return (x + self.mlp(self.norm_mlp(x))).permute(0, 3, 1, 2)


@torch.no_grad()
def scale_outputs(linear: nn.Linear, scale: torch.Tensor) -> None:
    """Multiply the outputs of a linear layer, one factor for each."""
    linear.weight.mul_(scale[:, None])
    linear.bias.mul_(scale)
