"""What the other processes of a run saw in the same step."""

from __future__ import annotations

import torch


def from_all_processes(values: torch.Tensor) -> torch.Tensor:
    """Return the values (B, ...) of all processes, one after the other; those of a lone process as they are.

    Every process calls it, with as many values.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    parts = [torch.empty_like(values) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, values.contiguous())
    return torch.cat(parts)
