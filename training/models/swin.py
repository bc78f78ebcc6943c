"""Swin-T (Liu et al. 2021): attention in windows that move by half their width from block to block.

No map is ever padded: the window is as wide as the last map. At 224 pixels that is the published 7, under
patches of 4; at 112 pixels it is 7, too, under patches of 2, as RAC+RSL's authors use it.
"""

from __future__ import annotations

import torch
from torch import nn

from training.models.cross_attention import (
    HEAD_DIM,
    DropPath,
    FeedForward,
    merge_windows,
    partition_windows,
    relative_position_index,
)
from training.models.encoder import MapEncoder

WIDTH = 96
DEPTHS = (2, 2, 6, 2)
DROP_PATH = 0.1
# From here on patches of 4 pixels give a last map that is nearer to 7 x 7 than patches of 2 do.
LARGE_FACE = 160
# What keeps a position from another region of a moved map: exp(-100) is 0 beside any other in float32.
FORBIDDEN = -100.0


class ShiftedWindowAttention(nn.Module):
    """Self-attention within windows, on a map moved up and left by `shift` and back.

    What the move brings round from the other edge is no neighbour: `mask` keeps the regions apart.
    """

    bias_index: torch.Tensor
    mask: torch.Tensor | None

    def __init__(self, dim: int, side: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads = dim // HEAD_DIM
        self.scale = HEAD_DIM**-0.5
        self.window, self.shift = window, shift
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)
        self.position_bias = nn.Parameter(torch.empty((2 * window - 1) ** 2, self.heads))
        nn.init.trunc_normal_(self.position_bias, std=0.02)
        self.register_buffer("bias_index", relative_position_index(window), persistent=False)
        self.register_buffer("mask", shift_mask(side, window, shift) if shift else None, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        _, height, width, dim = x.shape
        windows = partition_windows(rolled(x, self.shift), self.window)
        windows = merge_windows(self.attend(windows), height, width, self.window)
        return rolled(windows.reshape(-1, height, width, dim), -self.shift)

    def attend(self, windows: torch.Tensor) -> torch.Tensor:
        """Attend within windows (B * n, M, C), batch-major."""
        _, tokens, dim = windows.shape
        query, key, value = self.qkv(windows).chunk(3, dim=-1)
        q = query.reshape(-1, tokens, self.heads, HEAD_DIM).transpose(1, 2) * self.scale
        k = key.reshape(-1, tokens, self.heads, HEAD_DIM).permute(0, 2, 3, 1)
        v = value.reshape(-1, tokens, self.heads, HEAD_DIM).transpose(1, 2)
        bias = self.bias()
        scores = (q @ k).reshape(-1, bias.shape[0], tokens, tokens) + bias
        attention = scores.softmax(dim=-1).reshape(-1, self.heads, tokens, tokens)
        return self.project((attention @ v).transpose(1, 2).reshape(-1, tokens, dim))  # type: ignore[no-any-return]

    def bias(self) -> torch.Tensor:
        """Return what is added to the scores: (h, M, M), with a mask (n h, M, M), one for each window."""
        bias = self.position_bias[self.bias_index].permute(2, 0, 1)
        return bias if self.mask is None else (bias + self.mask[:, None]).flatten(0, 1)


def rolled(x: torch.Tensor, shift: int) -> torch.Tensor:
    """Return (B, H, W, C) moved up and left by `shift`, what leaves coming in on the other side."""
    return torch.roll(x, (-shift, -shift), dims=(1, 2)) if shift else x


def shift_mask(side: int, window: int, shift: int) -> torch.Tensor:
    """Return (n, M, M): FORBIDDEN where query and key of a moved map's window were no neighbours, else 0."""
    place = torch.arange(side)
    # Regions along one axis: untouched windows, the rest of the edge's window, what came round.
    region = (place >= side - window).long() + (place >= side - shift).long()
    regions = (3 * region[:, None] + region)[None, :, :, None]
    windows = partition_windows(regions, window).squeeze(-1)  # (n, M)
    return torch.where(windows[:, :, None] == windows[:, None, :], 0.0, FORBIDDEN)


class SwinBlock(nn.Module):
    """Pre-norm block of window attention and MLP on a channels-last map."""

    def __init__(self, dim: int, side: int, window: int, shift: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = ShiftedWindowAttention(dim, side, window, shift)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchMerging(nn.Module):
    """Halve a map: four neighbours to one position, normalised, and projected to twice the width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduce = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, H, W, C) to (B, H / 2, W / 2, 2 C)."""
        # Column by column, as in the released weights.
        parts = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduce(self.norm(torch.cat(parts, dim=-1)))  # type: ignore[no-any-return]


class LastStage(nn.Module):
    """The last merging, the last blocks and the closing norm, between maps with channels first."""

    def __init__(self, merging: PatchMerging, blocks: nn.Sequential, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.merging, self.blocks, self.norm = merging, blocks, norm

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to (B, 2 C, H / 2, W / 2)."""
        x = self.blocks(self.merging(maps.permute(0, 2, 3, 1)))
        return self.norm(x).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class SwinEncoder(MapEncoder):
    """Swin-T up to its last map: faces (B, 3, S, S) to embeddings (B, 768).

    The patch is 2 pixels below 160, else 4; the map is S / 16 or S / 32 wide: 7 x 7 of 112 and of 224 pixels.
    """

    def __init__(self, *, input_size: int) -> None:
        super().__init__()
        patch = 4 if input_size >= LARGE_FACE else 2
        if input_size % (8 * patch):
            raise ValueError(
                f"expected faces of a multiple of {8 * patch} pixels for swin_t, got {input_size}: "
                "its maps are cut into windows that leave no rest"
            )
        side = input_size // patch
        window = side // 8
        self.embedding_dim = self.map_channels = WIDTH * 8
        self.map_size = window
        self.patches = nn.Conv2d(3, WIDTH, patch, stride=patch)
        self.patch_norm = nn.LayerNorm(WIDTH)
        rates = iter(torch.linspace(0, DROP_PATH, sum(DEPTHS), device="cpu").tolist())
        stages = []
        for number, depth in enumerate(DEPTHS):
            dim, own = WIDTH << number, side >> number
            shifts = [window // 2 if block % 2 and own > window else 0 for block in range(depth)]
            stages.append(nn.Sequential(*(SwinBlock(dim, own, window, s, next(rates)) for s in shifts)))
        mergings = [PatchMerging(WIDTH << number) for number in range(3)]
        first, second, third, fourth = stages
        self.stages = nn.Sequential(first, mergings[0], second, mergings[1], third)
        self.last = LastStage(mergings[2], fourth, nn.LayerNorm(self.embedding_dim))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def trunk(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised faces (B, 3, S, S) to the input of the last stage (B, 384, 2 h, 2 w)."""
        x = self.patch_norm(self.patches(images).permute(0, 2, 3, 1))
        return self.stages(x).permute(0, 3, 1, 2)  # type: ignore[no-any-return]
