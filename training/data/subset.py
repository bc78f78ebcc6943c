"""A smaller training set with the classes' shares of the whole."""

from __future__ import annotations

import torch

from edge_fer.errors import TrainingError
from training.data.chance import generator
from training.data.imbalance import choose


def stratified_counts(counts: torch.Tensor, size: int) -> torch.Tensor:
    """Return how many faces of each class make a subset: its share, rounded by largest remainders.

    Raises:
        TrainingError: more faces than there are, or none.
    """
    total = int(counts.sum())
    if not 1 <= size <= total:
        raise TrainingError(f"expected a subset of 1 to {total} faces, got {size}")
    exact = counts * size  # over total; integers, so that no rounding error decides
    kept = exact // total
    left = size - int(kept.sum())
    kept[torch.sort(exact % total, descending=True, stable=True).indices[:left]] += 1
    return kept


def stratified_rows(labels: torch.Tensor, size: int, seed: int) -> torch.Tensor:
    """Return which faces make a subset of `size`, (size,) int64 ascending; chance chooses in every class.

    Raises:
        TrainingError: more faces than there are, or none.
    """
    kept = stratified_counts(torch.bincount(labels), size)
    return choose(labels, kept, generator(seed, "subset"))
