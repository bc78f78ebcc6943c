"""The multi-scale vision transformer over the three fused maps, and its squeeze-and-excitation gate."""

from __future__ import annotations

import torch
from torch import nn

from training.models.cross_attention import FeedForward

DIM = 768
TOKENS = 3 * 49


class MultiScaleTokens(nn.Module):
    """Embed the fused maps as 49 tokens of width 768 each, prepend CLS, add the position embedding."""

    def __init__(self) -> None:
        super().__init__()
        # Two convolutions without a non-linearity between them, as published.
        self.embed1 = nn.Sequential(nn.Conv2d(64, DIM, 3, 2, 1), nn.Conv2d(DIM, DIM, 3, 2, 1))
        self.embed2 = nn.Conv2d(128, DIM, 3, 2, 1)
        self.embed3 = nn.Conv2d(256, DIM, 1)
        self.cls = nn.Parameter(torch.empty(1, 1, DIM))
        self.position = nn.Parameter(torch.empty(1, 1 + TOKENS, DIM))

    def forward(self, map1: torch.Tensor, map2: torch.Tensor, map3: torch.Tensor) -> torch.Tensor:
        """Map (B, 64, 28, 28), (B, 128, 14, 14), (B, 256, 7, 7) to tokens (B, 148, 768)."""
        maps = (self.embed1(map1), self.embed2(map2), self.embed3(map3))
        tokens = [m.flatten(2).transpose(1, 2) for m in maps]
        cls = self.cls.expand(map1.shape[0], -1, -1)
        return torch.cat([cls, *tokens], dim=1) + self.position


class SelfAttention(nn.Module):
    """Multi-head self-attention with qkv bias, split as [3, heads, head dim]."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_dim = dim // heads
        self.scale = self.head_dim**-0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, T, dim) to (B, T, dim)."""
        batch, tokens, dim = x.shape
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        q = query.reshape(batch, tokens, self.heads, self.head_dim).transpose(1, 2) * self.scale
        k = key.reshape(batch, tokens, self.heads, self.head_dim).permute(0, 2, 3, 1)
        v = value.reshape(batch, tokens, self.heads, self.head_dim).transpose(1, 2)
        attended = (q @ k).softmax(dim=-1) @ v
        return self.project(attended.transpose(1, 2).reshape(batch, tokens, dim))


class Block(nn.Module):
    """Pre-norm transformer block (GReFEL Eq. 6-8 read with the norm before both parts)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attention = SelfAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = FeedForward(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, T, dim) to (B, T, dim)."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class SqueezeExcite(nn.Module):
    """e = x * sigmoid(L2(relu(L1 x))) on a vector."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, dim)
        self.linear2 = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, dim) to (B, dim)."""
        return x * torch.sigmoid(self.linear2(torch.relu(self.linear1(x))))


class MultiScaleViT(nn.Module):
    """Depth 2, width 768, 8 heads; the gated CLS token is the embedding e."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = MultiScaleTokens()
        self.blocks = nn.Sequential(Block(DIM, heads=8), Block(DIM, heads=8))
        self.norm = nn.LayerNorm(DIM, eps=1e-6)
        self.gate = SqueezeExcite(DIM)
        self.apply(initialise)
        nn.init.trunc_normal_(self.tokens.cls, std=0.02)
        nn.init.trunc_normal_(self.tokens.position, std=0.02)

    def forward(self, map1: torch.Tensor, map2: torch.Tensor, map3: torch.Tensor) -> torch.Tensor:
        """Map the three fused maps to the embedding (B, 768)."""
        x = self.norm(self.blocks(self.tokens(map1, map2, map3)))
        return self.gate(x[:, 0])


def initialise(module: nn.Module) -> None:
    """Initialise as POSTER++ does: Linear trunc-normal 0.01, convolution Kaiming fan-out, biases 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
