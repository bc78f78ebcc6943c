"""The last transformer block for the class token alone: nobody reads what becomes of the others."""

from __future__ import annotations

import torch
from torch import nn

from export.rewrites.attention import SplitSelfAttention
from training.models import ExpressionNetwork
from training.models.vit import Block, MultiScaleViT


def keep_class_token(network: ExpressionNetwork) -> None:
    """Let the last block of every ViT answer for its first token only. Needs `split_attention` first."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, MultiScaleViT):
                setattr(parent, name, ClassTokenViT(child))


class ClassTokenBlock(nn.Module):
    """`Block` that attends from the first token only."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.norm1, self.attention = block.norm1, block.attention
        self.norm2, self.mlp = block.norm2, block.mlp
        assert isinstance(self.attention, SplitSelfAttention)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, T, dim) to its first token (B, 1, dim)."""
        tokens = self.norm1(x)
        first = x[:, :1] + self.attention(tokens, tokens[:, :1])
        return first + self.mlp(self.norm2(first))


class ClassTokenViT(nn.Module):
    """`MultiScaleViT` whose last block, closing norm and gate see one token."""

    def __init__(self, vit: MultiScaleViT) -> None:
        super().__init__()
        *blocks, last = vit.blocks
        assert isinstance(last, Block)
        self.tokens = vit.tokens
        self.blocks = nn.Sequential(*blocks, ClassTokenBlock(last))
        self.norm, self.gate = vit.norm, vit.gate

    def forward(self, map1: torch.Tensor, map2: torch.Tensor, map3: torch.Tensor) -> torch.Tensor:
        """Map the three fused maps to the embedding (B, 768)."""
        return self.gate(self.norm(self.blocks(self.tokens(map1, map2, map3))).squeeze(1))
