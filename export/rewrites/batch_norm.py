"""BatchNorms: behind a convolution, and in front of a zero-padded one, folded into weights and biases."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from training.models import ExpressionNetwork
from training.models.iresnet import ImprovedResidualUnit, IResNet50Trunk

# A channel whose BatchNorm nearly forgets its input (|beta / gamma| above this) would shift the residual
# stream by as many of its standard deviations, and an int8 range with it: such a unit keeps its BatchNorm.
LARGEST_SHIFT = 8.0


def fold_batch_norms(network: ExpressionNetwork) -> None:
    """Fold every BatchNorm2d that follows a convolution into it: w' = w g / s, b' = beta - mu g / s."""
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            for place in range(len(module) - 1):
                convolution, norm = module[place], module[place + 1]
                if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module[place], module[place + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
        elif isinstance(module, ImprovedResidualUnit) and isinstance(module.norm_out, nn.BatchNorm2d):
            module.conv2 = fuse_conv_bn_eval(module.conv2, module.norm_out)
            module.norm_out = nn.Identity()  # type: ignore[assignment]
        elif isinstance(module, IResNet50Trunk) and isinstance(module.stem_norm, nn.BatchNorm2d):
            module.stem_conv = fuse_conv_bn_eval(module.stem_conv, module.stem_norm)
            module.stem_norm = nn.Identity()  # type: ignore[assignment]


class Shift(nn.Module):
    """Add a constant to each channel of (B, C, H, W)."""

    def __init__(self, offset: torch.Tensor) -> None:
        super().__init__()
        self.offset = nn.Parameter(offset.reshape(1, -1, 1, 1), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to the same shape."""
        return x + self.offset


def shift_residual_streams(network: ExpressionNetwork) -> None:
    """Fold the BatchNorms in front of zero-padded convolutions, where no plain folding is exact.

    BN(x) = g (x - p) with g = gamma / s and p = mu - beta / g. The scale g goes into the convolution. The
    shift cannot become a bias, since the padding is zero *behind* the BatchNorm; but zero-padding x - p is
    what the padded convolution sees. So the residual stream carries z = x - p: each unit's last bias moves it
    on from its own p to the next one's, and only the first unit of a stage needs an addition of its own.
    Needs `fold_batch_norms` first.
    """
    for module in network.modules():
        if isinstance(module, IResNet50Trunk):
            for name in ("stage1", "stage2", "stage3"):
                setattr(module, name, shifted_stage(getattr(module, name)))


def shifted_stage(stage: nn.Sequential) -> nn.Sequential:
    """Return the stage with its stream shifted inside; outside, input and output stay what they were."""
    units = [unit for unit in stage if isinstance(unit, ImprovedResidualUnit)]
    shifts = [stream_shift(unit.norm_in) for unit in units]
    ends = [*shifts[1:], torch.zeros_like(next(units[-1].conv2.parameters())[:, 0, 0, 0])]
    for unit, shift, end in zip(units, shifts, ends, strict=True):
        absorb_shift(unit, shift, end)
    if not shifts[0].any():
        return stage
    return nn.Sequential(Shifted(units[0], -shifts[0]), *units[1:])


class Shifted(nn.Module):
    """A residual unit behind the shift of its stream."""

    def __init__(self, unit: nn.Module, offset: torch.Tensor) -> None:
        super().__init__()
        self.shift = Shift(offset)
        self.unit = unit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, Cin, H, W) to (B, C, H / stride, W / stride)."""
        return self.unit(self.shift(x))


def stream_shift(norm: nn.Module) -> torch.Tensor:
    """Return p (C,) of BN(x) = g (x - p); zeros where the BatchNorm has to stay."""
    assert isinstance(norm, nn.BatchNorm2d)
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    ratio = norm.bias / norm.weight
    if not ratio.isfinite().all() or ratio.abs().max() > LARGEST_SHIFT:
        return torch.zeros_like(mean)
    return (mean - ratio * (variance + norm.eps).sqrt()).detach()


@torch.no_grad()
def absorb_shift(unit: ImprovedResidualUnit, shift: torch.Tensor, end: torch.Tensor) -> None:
    """Make a unit of x into one of z = x - shift whose result is its old one - end.

    A unit whose BatchNorm has to stay has shift 0: its input is the stream itself.
    """
    norm = unit.norm_in
    if shift.any() or is_scale(norm):
        assert norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        unit.conv1.weight.mul_(scale.reshape(1, -1, 1, 1))
        unit.norm_in = nn.Identity()  # type: ignore[assignment]
    assert unit.conv2.bias is not None
    carried = shift
    if isinstance(unit.shortcut, nn.Sequential):
        convolution = unit.shortcut[0]
        assert isinstance(convolution, nn.Conv2d) and convolution.kernel_size == (1, 1)
        carried = convolution.weight[:, :, 0, 0] @ shift
    unit.conv2.bias += carried - end


def is_scale(norm: nn.BatchNorm2d) -> bool:
    """Tell whether a BatchNorm has no shift: mean and bias are zero, as in untrained weights."""
    assert norm.running_mean is not None
    return not norm.running_mean.any() and not norm.bias.any()
