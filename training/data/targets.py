"""What a face's target distribution is before smoothing, mixing and teachers."""

from __future__ import annotations

import torch
from torch.nn.functional import one_hot


def target_distribution(
    labels: torch.Tensor, votes: torch.Tensor | None, classes: int, min_votes: int = 1
) -> torch.Tensor:
    """Return (B, N) targets: the votes' distribution where given, else one-hot labels (B,).

    Emotions with fewer than `min_votes` votes are left out, unless that leaves a face without any.
    """
    if votes is None:
        return one_hot(labels, classes).float()
    kept = votes * (votes >= min_votes)
    votes = torch.where(kept.sum(dim=-1, keepdim=True) > 0, kept, votes)
    return votes / votes.sum(dim=-1, keepdim=True)
