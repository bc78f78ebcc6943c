"""Training sets made more imbalanced than they are (RAC+RSL, systems §4.2)."""

from __future__ import annotations

import math

import torch

from edge_fer.errors import TrainingError
from training.data.chance import generator

_ROUNDING = 5e-4  # the set's own factor is taken as the refusal of a smaller one prints it


def imbalanced_counts(counts: torch.Tensor, factor: float) -> torch.Tensor:
    """Return how many faces of each class stay: floor(n_l mu^l), classes sorted by size from l = 0.

    mu is such that the largest class has `factor` times the faces of the smallest. Classes of as many faces
    are taken in their own order; classes without faces are not counted.

    Args:
        counts: (C,) int64, faces of each class.
        factor: largest class / smallest class, at least the set's own.

    Raises:
        TrainingError: fewer than two classes, the set's own factor is larger, or a class would end up empty.
    """
    present = (counts > 0).nonzero().squeeze(1)
    if len(present) < 2:
        raise TrainingError(f"expected at least two classes for an imbalance, got {len(present)}")
    order = present[torch.sort(counts[present], descending=True, stable=True).indices]
    largest, smallest = int(counts[order[0]]), int(counts[order[-1]])
    if not math.isfinite(factor) or factor < largest / smallest * (1 - _ROUNDING):
        raise TrainingError(
            f"expected an imbalance factor of at least {largest / smallest:.4g}, which the set has already "
            f"({largest} to {smallest} faces), got {factor:g}"
        )
    shrink = min(1.0, largest / (smallest * factor)) ** (1 / (len(order) - 1))
    kept = torch.zeros_like(counts)
    for place, label in enumerate(order.tolist()):
        # The last one is largest / factor: 100, not 99.99999.
        kept[label] = math.floor(int(counts[label]) * shrink**place + 1e-6)
    if int(kept[order].min()) == 0:
        raise TrainingError(f"an imbalance factor of {factor:g} leaves a class of {smallest} faces empty")
    return kept


def imbalanced_rows(labels: torch.Tensor, factor: float, seed: int) -> torch.Tensor:
    """Return which faces stay at an imbalance factor, (R,) int64 ascending; chance chooses in every class.

    Args:
        labels: (N,) int64.
        factor: see `imbalanced_counts`.
        seed: of the choice.

    Raises:
        TrainingError: see `imbalanced_counts`.
    """
    kept = imbalanced_counts(torch.bincount(labels), factor)
    return choose(labels, kept, generator(seed, "imbalance"))


def choose(labels: torch.Tensor, counts: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """Return rows, ascending, of so many faces of each class, (C,) int64; chance chooses which."""
    rows = []
    for label, count in enumerate(counts.tolist()):
        members = (labels == label).nonzero().squeeze(1)
        rows.append(members[torch.randperm(len(members), generator=chance)[:count]])
    return torch.cat(rows).sort().values
