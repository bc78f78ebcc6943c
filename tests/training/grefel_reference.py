"""GReFEL's encoder a second time, as functions of a dictionary of weights, written from the papers' text.

Shares no code with `training/models`: slices instead of pooling, einsum instead of reshaped matrix products,
the position bias looked up query by query. Keeps what every part gave, so that a disagreement can be located.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import torch
from torch.nn import functional

Weights = Mapping[str, torch.Tensor]
LEVELS = ((1, 64, 28), (2, 128, 14), (3, 256, 7))  # number, channels, side of the only window


def weight_by_rule(name: str, like: torch.Tensor) -> torch.Tensor:
    """Return a value for a tensor of the network that depends on its name and shape alone.

    Nothing is near its initial value: LayerScale is raised to about 0.5, running statistics and biases are
    not trivial, and activations stay of order 1.
    """
    if not like.is_floating_point():
        return like.clone()
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    normal = torch.randn(like.shape, generator=generator)
    uniform = torch.rand(like.shape, generator=generator)
    kind = name.rpartition(".")[2]
    if kind in ("running_mean", "bias"):
        return 0.3 * normal
    if kind == "running_var":
        return 0.5 + 1.5 * uniform
    if kind in ("scale1", "scale2"):
        return 0.3 + 0.4 * uniform
    if kind == "position_bias":
        return normal
    if kind in ("cls", "position"):
        return 0.5 * normal
    if like.ndim == 1:  # PReLU's slopes, the norms' scales
        return 0.3 + 0.6 * uniform
    return normal * math.sqrt(like.shape[0] / like.numel())


def encode(weights: Weights, face: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return every part's output for normalised faces (B, 3, 112, 112); the embedding is under "e"."""
    w = {name.removeprefix("encoder."): tensor for name, tensor in weights.items()}
    maps = image_maps(w, face)
    taps = landmark_taps(w, face)
    last = convolve(w, "landmark_last", taps[2], padding=1)
    parts = {f"map{number}": part for number, part in enumerate(maps, 1)}
    parts |= {f"tap{number}": part for number, part in enumerate(taps, 1)}
    parts["landmark_last"] = last
    queries = (taps[0], taps[1], last)
    for (number, channels, side), image, query in zip(LEVELS, maps, queries, strict=True):
        parts[f"level{number}"] = fuse(w, f"level{number}", image, query, channels, side)
    parts["tokens"] = tokens(w, parts["level1"], parts["level2"], parts["level3"])
    x = parts["tokens"]
    for number in range(2):
        x = parts[f"block{number}"] = transformer_block(w, f"vit.blocks.{number}", x)
    cls = layer_norm(w, "vit.norm", x[:, 0], 1e-6)
    hidden = torch.clamp_min(dense(w, "vit.gate.linear1", cls), 0.0)
    parts["e"] = cls / (1.0 + torch.exp(-dense(w, "vit.gate.linear2", hidden)))
    return parts


def convolve(
    w: Weights, name: str, x: torch.Tensor, *, stride: int = 1, padding: int = 0, groups: int = 1
) -> torch.Tensor:
    bias = w.get(f"{name}.bias")
    return functional.conv2d(x, w[f"{name}.weight"], bias, stride, padding, groups=groups)


def batch_norm(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    mean, variance = w[f"{name}.running_mean"], w[f"{name}.running_var"]
    return functional.batch_norm(x, mean, variance, w[f"{name}.weight"], w[f"{name}.bias"], False, 0.1, 1e-5)


def layer_norm(w: Weights, name: str, x: torch.Tensor, eps: float) -> torch.Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1, keepdim=True)
    return centred / torch.sqrt(variance + eps) * w[f"{name}.weight"] + w[f"{name}.bias"]


def prelu(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return torch.where(x >= 0, x, w[f"{name}.weight"][:, None, None] * x)


def dense(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return torch.einsum("...i,oi->...o", x, w[f"{name}.weight"]) + w[f"{name}.bias"]


def gelu(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1.0 + torch.erf(x / math.sqrt(2.0)))


def image_maps(w: Weights, x: torch.Tensor) -> list[torch.Tensor]:
    """IR-50: stem and stages of 3, 4 and 14 units."""
    x = convolve(w, "image_branch.stem_conv", x, padding=1)
    x = prelu(w, "image_branch.stem_prelu", batch_norm(w, "image_branch.stem_norm", x))
    maps = []
    for stage, units in enumerate((3, 4, 14), 1):
        for unit in range(units):
            name = f"image_branch.stage{stage}.{unit}"
            stride = 2 if unit == 0 else 1
            if unit == 0 and stage > 1:
                shortcut = convolve(w, f"{name}.shortcut.0", x, stride=2)
                shortcut = batch_norm(w, f"{name}.shortcut.1", shortcut)
            else:
                shortcut = x[:, :, ::stride, ::stride]
            y = convolve(w, f"{name}.conv1", batch_norm(w, f"{name}.norm_in", x), padding=1)
            y = convolve(w, f"{name}.conv2", prelu(w, f"{name}.prelu", y), stride=stride, padding=1)
            x = batch_norm(w, f"{name}.norm_out", y) + shortcut
        maps.append(x)
    return maps


def conv_block(
    w: Weights, name: str, x: torch.Tensor, *, stride: int = 1, linear: bool = False
) -> torch.Tensor:
    """Convolution, BN, PReLU; a kernel with one input channel per group is the depthwise one."""
    kernel = w[f"{name}.0.weight"]
    groups = x.shape[1] // kernel.shape[1]
    x = convolve(w, f"{name}.0", x, stride=stride, padding=kernel.shape[-1] // 2, groups=groups)
    x = batch_norm(w, f"{name}.1", x)
    return x if linear else prelu(w, f"{name}.2", x)


def bottleneck(w: Weights, name: str, x: torch.Tensor, stride: int) -> torch.Tensor:
    y = conv_block(w, f"{name}.expand", x)
    y = conv_block(w, f"{name}.depthwise", y, stride=stride)
    y = conv_block(w, f"{name}.project", y, linear=True)
    return y if stride == 2 else x + y


def landmark_taps(w: Weights, x: torch.Tensor) -> list[torch.Tensor]:
    """MobileFaceNet: one strided bottleneck, then 4, 6 and 2 residual ones."""
    x = conv_block(w, "landmark_branch.stem", x, stride=2)
    x = conv_block(w, "landmark_branch.stem_depthwise", x)
    taps = []
    for stage, repeats in enumerate((4, 6, 2), 1):
        x = bottleneck(w, f"landmark_branch.down{stage}", x, 2)
        for number in range(repeats):
            x = bottleneck(w, f"landmark_branch.blocks{stage}.{number}", x, 1)
        taps.append(x)
    taps[2] = conv_block(w, "landmark_branch.last", x)
    return taps


def position_bias(table: torch.Tensor, side: int) -> torch.Tensor:
    """Return (h, M, M) of a ((2w-1)^2, h) table: a query's keys lie in a reversed square."""
    square = table.reshape(2 * side - 1, 2 * side - 1, -1)
    rows = []
    for y in range(side):
        for x in range(side):
            # Key (0, 0) has the largest difference, at (y + w - 1, x + w - 1); key (w-1, w-1) is at (y, x).
            rows.append(square[y : y + side, x : x + side].flip(0, 1).flatten(0, 1))
    return torch.stack(rows).permute(2, 0, 1)


def fuse(
    w: Weights, name: str, image: torch.Tensor, landmark: torch.Tensor, channels: int, side: int
) -> torch.Tensor:
    """One level of cross-attention over its only window; returns (B, C, w, w)."""
    batch, heads, count = image.shape[0], channels // 32, side * side
    x = convolve(w, f"{name}.down", image, stride=2, padding=1)
    x = torch.einsum("bcyx->byxc", x).reshape(batch, count, channels)
    x = layer_norm(w, f"{name}.norm", x, 1e-5)
    q = torch.einsum("bcyx->byxc", landmark).reshape(batch, count, heads, 32) / math.sqrt(32.0)
    k, v = dense(w, f"{name}.attention.key_value", x).reshape(batch, count, 2, heads, 32).unbind(2)
    logits = torch.einsum("bihd,bjhd->bhij", q, k)
    logits = logits + position_bias(w[f"{name}.attention.position_bias"], side)
    attention = torch.exp(logits - logits.amax(dim=-1, keepdim=True))
    attention = attention / attention.sum(dim=-1, keepdim=True)
    mixed = torch.einsum("bhij,bjhd->bihd", attention, v).reshape(batch, count, channels)
    x = x + w[f"{name}.scale1"] * dense(w, f"{name}.attention.project", mixed)
    hidden = gelu(dense(w, f"{name}.mlp.0", layer_norm(w, f"{name}.norm_mlp", x, 1e-5)))
    x = x + w[f"{name}.scale2"] * dense(w, f"{name}.mlp.2", hidden)
    return torch.einsum("byxc->bcyx", x.reshape(batch, side, side, channels))


def tokens(w: Weights, *fused: torch.Tensor) -> torch.Tensor:
    """CLS and 3 x 49 tokens with their position embedding, (B, 148, 768)."""
    first = convolve(w, "vit.tokens.embed1.0", fused[0], stride=2, padding=1)
    first = convolve(w, "vit.tokens.embed1.1", first, stride=2, padding=1)
    second = convolve(w, "vit.tokens.embed2", fused[1], stride=2, padding=1)
    third = convolve(w, "vit.tokens.embed3", fused[2])
    cls = w["vit.tokens.cls"].expand(len(first), 1, 768)
    rows = [torch.einsum("bcyx->byxc", part).reshape(-1, 49, 768) for part in (first, second, third)]
    return torch.cat([cls, *rows], dim=1) + w["vit.tokens.position"]


def transformer_block(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    """Pre-norm block of 8 heads of 96."""
    batch, count, _ = x.shape
    joint = dense(w, f"{name}.attention.qkv", layer_norm(w, f"{name}.norm1", x, 1e-6))
    q, k, v = joint.reshape(batch, count, 3, 8, 96).unbind(2)
    attention = torch.softmax(torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(96.0), dim=-1)
    mixed = torch.einsum("bhij,bjhd->bihd", attention, v).reshape(batch, count, 768)
    x = x + dense(w, f"{name}.attention.project", mixed)
    return x + dense(
        w, f"{name}.mlp.2", gelu(dense(w, f"{name}.mlp.0", layer_norm(w, f"{name}.norm2", x, 1e-6)))
    )
