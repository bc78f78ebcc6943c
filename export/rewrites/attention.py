"""Attention with one projection for each of query, key and value, and its scale folded into one of them."""

from __future__ import annotations

import torch
from torch import nn

from training.models import ExpressionNetwork
from training.models.cross_attention import HEAD_DIM, WindowCrossAttention
from training.models.vit import SelfAttention


def split_attention(network: ExpressionNetwork) -> None:
    """Split the joint projections: no splitting of tensors, no scaling of queries is left to the engine."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, SelfAttention):
                setattr(parent, name, SplitSelfAttention(child))
            elif isinstance(child, WindowCrossAttention):
                setattr(parent, name, SplitCrossAttention(child))


def part(linear: nn.Linear, number: int, parts: int, scale: float = 1.0) -> nn.Linear:
    """Return one of `parts` equal ranges of a linear layer's outputs, multiplied by `scale`."""
    weight, bias = linear.weight.chunk(parts)[number], linear.bias.chunk(parts)[number]
    result = nn.Linear(weight.shape[1], weight.shape[0])
    result.weight = nn.Parameter((weight * scale).detach(), requires_grad=False)
    result.bias = nn.Parameter((bias * scale).detach(), requires_grad=False)
    return result


class SplitSelfAttention(nn.Module):
    """`SelfAttention` whose queries may be fewer than its tokens."""

    def __init__(self, attention: SelfAttention) -> None:
        super().__init__()
        self.heads, self.head_dim = attention.heads, attention.head_dim
        self.query = part(attention.qkv, 0, 3, attention.scale)
        self.key = part(attention.qkv, 1, 3)
        self.value = part(attention.qkv, 2, 3)
        self.project = attention.project

    def forward(self, x: torch.Tensor, queries: torch.Tensor | None = None) -> torch.Tensor:
        """Attend from `queries` (B, Q, dim), all tokens when None, to x (B, T, dim): (B, Q, dim)."""
        batch, tokens, dim = x.shape
        asking = x if queries is None else queries
        q = self.query(asking).reshape(batch, -1, self.heads, self.head_dim).transpose(1, 2)
        k = self.key(x).reshape(batch, tokens, self.heads, self.head_dim).permute(0, 2, 3, 1)
        v = self.value(x).reshape(batch, tokens, self.heads, self.head_dim).transpose(1, 2)
        attended = (q @ k).softmax(dim=-1) @ v
        return self.project(attended.transpose(1, 2).reshape(batch, -1, dim))


class SplitCrossAttention(nn.Module):
    """`WindowCrossAttention` with the scale in its keys: its queries come from no projection."""

    position_bias: torch.Tensor

    def __init__(self, attention: WindowCrossAttention) -> None:
        super().__init__()
        self.heads = attention.heads
        self.query = attention.query
        self.key = part(attention.key_value, 0, 2, attention.scale)
        self.value = part(attention.key_value, 1, 2)
        self.project = attention.project
        bias = attention.position_bias.detach()[attention.bias_index].permute(2, 0, 1)
        self.register_buffer("position_bias", bias[None].contiguous())  # (1, h, M, M)

    def forward(self, windows: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        """Attend from `query` (B, M, C) to `windows` (B * n, M, C), batch-major; return (B * n, M, C)."""
        count, tokens, dim = windows.shape
        repeats = count // query.shape[0]
        if repeats > 1:
            query = query.repeat_interleave(repeats, dim=0)
        q = self.query(query).reshape(count, tokens, self.heads, HEAD_DIM).transpose(1, 2)
        k = self.key(windows).reshape(count, tokens, self.heads, HEAD_DIM).permute(0, 2, 3, 1)
        v = self.value(windows).reshape(count, tokens, self.heads, HEAD_DIM).transpose(1, 2)
        attention = (q @ k + self.position_bias).softmax(dim=-1)
        return self.project((attention @ v).transpose(1, 2).reshape(count, tokens, dim))
