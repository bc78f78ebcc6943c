"""Window cross-attention between an image map and a landmark map (GReFEL Eq. 1-5; POSTER++)."""

from __future__ import annotations

import torch
from torch import nn

HEAD_DIM = 32


class DropPath(nn.Module):
    """Stochastic depth per sample: drops a residual branch with probability `rate` while training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x, or x with whole samples zeroed and the rest scaled by 1 / (1 - rate)."""
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1.0 - self.rate
        mask = torch.rand((x.shape[0],) + (1,) * (x.ndim - 1), device=x.device) < keep
        return x * mask.to(x.dtype) / keep


def relative_position_index(window: int) -> torch.Tensor:
    """Return (M, M) indices (dy + w - 1)(2w - 1) + dx + w - 1; dy, dx = query minus key position, M = w^2."""
    axis = torch.arange(window)
    y, x = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
    dy = y[:, None] - y[None, :] + window - 1
    dx = x[:, None] - x[None, :] + window - 1
    return dy * (2 * window - 1) + dx


class WindowCrossAttention(nn.Module):
    """Multi-head attention whose queries are the landmark map and whose keys and values are image tokens.

    There is no query projection in the published code although Eq. 1 prints one; `project_query` adds it.
    """

    bias_index: torch.Tensor

    def __init__(self, dim: int, window: int, *, project_query: bool = False) -> None:
        super().__init__()
        self.heads = dim // HEAD_DIM
        self.scale = HEAD_DIM**-0.5
        self.query = nn.Linear(dim, dim) if project_query else nn.Identity()
        self.key_value = nn.Linear(dim, 2 * dim)
        self.project = nn.Linear(dim, dim)
        self.position_bias = nn.Parameter(torch.empty((2 * window - 1) ** 2, self.heads))
        nn.init.trunc_normal_(self.position_bias, std=0.02)
        self.register_buffer("bias_index", relative_position_index(window), persistent=False)

    def forward(self, windows: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        """Attend from `query` (B, M, C) to `windows` (B * n, M, C), batch-major; return (B * n, M, C)."""
        count, tokens, dim = windows.shape
        repeats = count // query.shape[0]
        if repeats > 1:
            # Every window of a sample gets the same query: the GC-ViT global query.
            query = query.repeat_interleave(repeats, dim=0)
        q = self.query(query).reshape(count, tokens, self.heads, HEAD_DIM).transpose(1, 2) * self.scale
        key, value = self.key_value(windows).chunk(2, dim=-1)
        k = key.reshape(count, tokens, self.heads, HEAD_DIM).permute(0, 2, 3, 1)
        v = value.reshape(count, tokens, self.heads, HEAD_DIM).transpose(1, 2)
        bias = self.position_bias[self.bias_index].permute(2, 0, 1)  # (h, M, M)
        attention = (q @ k + bias).softmax(dim=-1)
        return self.project((attention @ v).transpose(1, 2).reshape(count, tokens, dim))


class FeedForward(nn.Sequential):
    """Linear C -> ratio * C, exact GELU, Linear back."""

    def __init__(self, dim: int, ratio: int = 4) -> None:
        super().__init__(nn.Linear(dim, ratio * dim), nn.GELU(), nn.Linear(ratio * dim, dim))


def partition_windows(x: torch.Tensor, window: int) -> torch.Tensor:
    """Split (B, H, W, C) into (B * n, window^2, C), windows batch-major, tokens row-major."""
    batch, height, width, dim = x.shape
    if (height, width) == (window, window):
        return x.reshape(batch, window * window, dim)
    # The rows of a window lie `window * dim` values apart: four axes suffice.
    x = x.reshape(-1, window, width // window, window * dim).transpose(1, 2)
    return x.reshape(-1, window * window, dim)


def merge_windows(windows: torch.Tensor, height: int, width: int, window: int) -> torch.Tensor:
    """Undo `partition_windows`: (B * n, window^2, C) to (B, H, W, C)."""
    dim = windows.shape[-1]
    if (height, width) == (window, window):
        return windows.reshape(-1, height, width, dim)
    x = windows.reshape(-1, width // window, window, window * dim).transpose(1, 2)
    return x.reshape(-1, height, width, dim)


class CrossFusionLevel(nn.Module):
    """One of the three levels: down-sampling, window cross-attention and MLP, both with LayerScale.

    The *normalised* map is both the attention input and the residual shortcut (the code; Eq. 4 adds the
    un-normalised one).
    """

    def __init__(self, dim: int, window: int, *, drop_path: float, project_query: bool = False) -> None:
        super().__init__()
        self.window = window
        self.down = nn.Conv2d(dim, dim, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(dim)
        self.attention = WindowCrossAttention(dim, window, project_query=project_query)
        self.scale1 = nn.Parameter(torch.full((dim,), 1e-5))
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim)
        self.scale2 = nn.Parameter(torch.full((dim,), 1e-5))
        self.drop_path = DropPath(drop_path)

    def forward(self, image: torch.Tensor, landmark: torch.Tensor) -> torch.Tensor:
        """Fuse an image map (B, C, 2H, 2W) with a landmark tap (B, C, w, w) into (B, C, H, W)."""
        shortcut = self.norm(self.down(image).permute(0, 2, 3, 1))
        _, height, width, _ = shortcut.shape
        query = landmark.permute(0, 2, 3, 1).flatten(1, 2)
        attended = self.attention(partition_windows(shortcut, self.window), query)
        attended = merge_windows(attended, height, width, self.window)
        x = shortcut + self.drop_path(self.scale1 * attended)
        x = x + self.drop_path(self.scale2 * self.mlp(self.norm_mlp(x)))
        return x.permute(0, 3, 1, 2)
