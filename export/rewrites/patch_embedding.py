"""The two patch convolutions without a non-linearity between them as the one convolution that they are."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import conv_transpose2d

from training.models import ExpressionNetwork
from training.models.vit import MultiScaleTokens


def merge_patch_convolutions(network: ExpressionNetwork) -> None:
    """Compose the convolutions of the first map's patch embedding.

    A 3x3 convolution of stride 2 behind another one is a 7x7 convolution of stride 4 and padding 3, a third
    of the work. What the first one would give at a place of the second one's padding lies wholly in its own
    padding, 0 but for its bias, and there the published network has 0: so the first bias reaches the tokens
    by the places that exist, as a constant per token, and goes into the position embedding.
    """
    for module in network.modules():
        if isinstance(module, MultiScaleTokens) and isinstance(module.embed1, nn.Sequential):
            first, second = module.embed1
            assert isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)
            absorb_biases(module, first, second)
            module.embed1 = compose(first, second)  # type: ignore[assignment]


@torch.no_grad()
def compose(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """Return second(first(x)) as one convolution without bias, both 3x3, stride 2, padding 1."""
    for convolution in (first, second):
        assert (convolution.kernel_size, convolution.stride, convolution.padding) == ((3, 3), (2, 2), (1, 1))
    merged = nn.Conv2d(first.in_channels, second.out_channels, 7, stride=4, padding=3, bias=False)
    # The kernel is the response to a unit input: in float64, since the sums are long.
    kernel = conv_transpose2d(second.weight.double(), first.weight.double(), stride=2)
    merged.weight.copy_(kernel.float())
    return merged


@torch.no_grad()
def absorb_biases(tokens: MultiScaleTokens, first: nn.Conv2d, second: nn.Conv2d) -> None:
    """Add what the two biases give to the position embedding of the first map's tokens."""
    assert first.bias is not None
    side = 14  # the first convolution's output for the 28 x 28 map
    constant = second(first.bias.reshape(1, -1, 1, 1).expand(1, -1, side, side))
    rows = constant.flatten(2).transpose(1, 2)  # (1, 49, 768)
    tokens.position[:, 1 : 1 + rows.shape[1]] += rows
