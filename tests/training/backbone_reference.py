"""The convolutional backbones and Swin a second time, as functions of a dictionary of weights.

Written from the papers; shares no code with `training/models` but Swin's windowed attention, which has a
test of its own, position by position. All of it is in eval mode.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

Weights = Mapping[str, torch.Tensor]


def convolve(w: Weights, name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
    """Convolve with padding that keeps the map's size but for the stride; groups by the weights' shape."""
    weight = w[f"{name}.weight"]
    groups = x.shape[1] // weight.shape[1]
    return functional.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=groups)


def affine(
    w: Weights, name: str, x: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor
) -> torch.Tensor:
    """Normalise channels by these statistics, then scale and move them."""
    scaled = (x - mean) / (variance + 1e-5).sqrt()
    return scaled * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]


def by_batch(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    """Normalise by the running statistics."""
    mean, variance = (w[f"{name}.running_{kind}"][:, None, None] for kind in ("mean", "var"))
    return affine(w, name, x, mean, variance)


def normed(w: Weights, name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
    """Convolve and normalise: by batch, or half by instance where there are weights for that (IBN-a)."""
    x = convolve(w, f"{name}.0", x, stride)
    if f"{name}.1.instance.weight" not in w:
        return by_batch(w, f"{name}.1", x)
    half = x.shape[1] // 2
    first, second = x[:, :half], x[:, half:]
    mean = first.mean(dim=(2, 3), keepdim=True)
    spread = ((first - mean) ** 2).mean(dim=(2, 3), keepdim=True)
    own = affine(w, f"{name}.1.instance", first, mean, spread)
    return torch.cat([own, by_batch(w, f"{name}.1.batch", second)], dim=1)


def relu(x: torch.Tensor) -> torch.Tensor:
    """Return max(0, x)."""
    return x.clamp(min=0)


def relu6(x: torch.Tensor) -> torch.Tensor:
    """Return min(6, max(0, x))."""
    return x.clamp(min=0, max=6)


def pooled(x: torch.Tensor) -> torch.Tensor:
    """Return the maxima of 3x3 positions at every second one."""
    return functional.max_pool2d(x, 3, 2, 1)


def resnet(w: Weights, x: torch.Tensor, units: tuple[int, ...], *, small: bool) -> torch.Tensor:
    """He et al. 2016, Table 1 and Fig. 5; the stride of a bottleneck in its 3x3 convolution."""
    x = relu(normed(w, "stem", x, 2))
    x = x if small else pooled(x)
    for stage, count in enumerate(units):
        for unit in range(count):
            name = f"{'last' if stage == 3 else f'stages.{stage}'}.{unit}"
            stride = 2 if stage and not unit else 1
            if f"{name}.conv3.0.weight" in w:
                y = relu(normed(w, f"{name}.conv1", x))
                y = normed(w, f"{name}.conv3", relu(normed(w, f"{name}.conv2", y, stride)))
            else:
                y = normed(w, f"{name}.conv2", relu(normed(w, f"{name}.conv1", x, stride)))
            if f"{name}.shortcut.0.weight" in w:
                x = normed(w, f"{name}.shortcut", x, stride)
            x = relu(x + y)
    return x


def mobilenet_v1(w: Weights, x: torch.Tensor, *, small: bool) -> torch.Tensor:
    """Howard et al. 2017, Table 1 and Fig. 3: strides 1, 2, 1, 2, 1, 2, five times 1, 2, 1."""
    x = relu(normed(w, "stem", x, 1 if small else 2))
    for unit, stride in enumerate((1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)):
        name = f"last.{unit - 11}" if unit > 10 else f"units.{unit}"
        x = relu(normed(w, f"{name}.0", x, stride))
        x = relu(normed(w, f"{name}.2", x))
    return x


def mobilenet_v2(w: Weights, x: torch.Tensor, *, small: bool) -> torch.Tensor:
    """Sandler et al. 2018, Tables 1 and 2: linear projections, shortcuts between equal shapes."""
    x = relu6(normed(w, "stem", x, 1 if small else 2))
    stages = zip((1, 2, 3, 4, 3, 3, 1), (1, 2, 2, 2, 1, 2, 1), strict=True)
    for stage, (blocks, first) in enumerate(stages):
        for block in range(blocks):
            name = f"{f'last.{stage - 5}' if stage > 4 else f'stages.{stage}'}.{block}.conv"
            stride = 1 if block else first
            steps = [f"{name}.0", f"{name}.1"] if stage else [f"{name}.0"]
            y = x
            for step in steps:
                y = relu6(normed(w, step, y, stride if step == steps[-1] else 1))
            y = by_batch(w, f"{name}.{len(steps) + 1}", convolve(w, f"{name}.{len(steps)}", y))
            x = x + y if x.shape == y.shape and stride == 1 else y
    return relu6(normed(w, "last.2", x))


def shufflenet(w: Weights, x: torch.Tensor, *, small: bool) -> torch.Tensor:
    """Zhang et al. 2018, Fig. 2 and Table 1: three groups, no ReLU after the depthwise convolution."""
    x = relu(normed(w, "stem", x, 2))
    x = x if small else pooled(x)
    for stage, units in enumerate((4, 8, 4)):
        for unit in range(units):
            name = f"{'last' if stage == 2 else f'stages.{stage}'}.{unit}"
            y = relu(normed(w, f"{name}.reduce", x))
            y = y.unflatten(1, (3, -1)).movedim(1, 2).flatten(1, 2)
            y = normed(w, f"{name}.depthwise", y, 1 if unit else 2)
            y = normed(w, f"{name}.expand", y)
            x = relu(x + y if unit else torch.cat([functional.avg_pool2d(x, 3, 2, 1), y], dim=1))
    return x


def layer_norm(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    """Normalise over the last axis."""
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def swin(w: Weights, x: torch.Tensor, attentions: Mapping[str, nn.Module], patch: int) -> torch.Tensor:
    """Liu et al. 2021, Eq. 3 and Fig. 3, channels first at the end; `attentions` by their names."""
    x = functional.conv2d(x, w["patches.weight"], w["patches.bias"], patch)
    x = layer_norm(w, "patch_norm", x.movedim(1, -1))
    stages = ("stages.0", "stages.1", "stages.2", "stages.3", "stages.4", "last.merging", "last.blocks")
    blocks = (2, 0, 2, 0, 6, 0, 2)
    for stage, count in zip(stages, blocks, strict=True):
        if not count:
            parts = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
            x = layer_norm(w, f"{stage}.norm", torch.cat(parts, dim=-1)) @ w[f"{stage}.reduce.weight"].T
        for name in (f"{stage}.{block}" for block in range(count)):
            x = x + attentions[f"{name}.attention"](layer_norm(w, f"{name}.norm1", x))
            y = layer_norm(w, f"{name}.norm2", x)
            y = functional.gelu(y @ w[f"{name}.mlp.0.weight"].T + w[f"{name}.mlp.0.bias"])
            x = x + y @ w[f"{name}.mlp.2.weight"].T + w[f"{name}.mlp.2.bias"]
    return layer_norm(w, "last.norm", x).movedim(-1, 1)
