"""Class attention maps: where in a face a linear head finds each class (CAM, Zhou et al., CVPR 2016).

Their mean over the positions is, but for the bias, the head's logits in eval mode.
"""

from __future__ import annotations

import torch
from torch import nn

from training.models import ExpressionNetwork, HeadOutput, MapEncoder, standardise


def feature_maps(network: ExpressionNetwork, faces: torch.Tensor) -> torch.Tensor:
    """Return the encoder's maps (B, C, h, w) of faces (B, 3, S, S) in 0..1, RGB."""
    assert isinstance(network.encoder, MapEncoder)
    return network.encoder.forward_map(standardise(faces, network))


def judge(network: ExpressionNetwork, maps: torch.Tensor) -> HeadOutput:
    """Return what the head says of the encoder's maps (B, C, h, w), in float32."""
    assert isinstance(network.encoder, MapEncoder)
    features = maps if network.head.takes_map else network.encoder.pool(maps)
    with torch.autocast(maps.device.type, enabled=False):
        return network.head(features.float())  # type: ignore[no-any-return]


def has_attention_maps(network: ExpressionNetwork) -> bool:
    """Tell whether the network finds its classes at places in a map: a linear head on a map's mean."""
    return isinstance(network.encoder, MapEncoder) and network.spec.head == "linear"


def class_attention_maps(network: ExpressionNetwork, maps: torch.Tensor) -> torch.Tensor:
    """Return A (B, N, h, w) float32 with A_lhw = sum_c W_lc F_chw, without bias (RAC+RSL Eq. 2).

    No gradient reaches the head's weight W: the maps are to agree, not the weights to vanish. What pooling
    does to the mean is done to every position of F, with running statistics; so the maps come after all
    pooling of a training step, which moves these.

    Args:
        network: one that `has_attention_maps`.
        maps: (B, C, h, w), the encoder's feature maps.
    """
    assert isinstance(network.encoder, MapEncoder)
    assert isinstance(network.head.linear, nn.Linear)
    with torch.autocast(maps.device.type, enabled=False):
        positions = network.encoder.spread(maps.float())
        weight = network.head.linear.weight.detach().float()
        return torch.einsum("nd,bdhw->bnhw", weight, positions)
