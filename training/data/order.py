"""Which faces an epoch trains on, in which order: a function of seed and epoch, so that resuming is exact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from edge_fer.errors import TrainingError

SAMPLERS = ("all", "balanced")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the faces of an epoch are chosen.

    Attributes:
        sampler: all, every face once; balanced, every class as likely, with replacement, as many faces.
        pool: faces of every class in an epoch, whatever the classes have (systems §1.8: 500); 0: no pool.
        group_pool: at most so many faces of every video before that (systems §1.8: 512); 0: all.

    Raises:
        TrainingError: an unknown sampler, or a pool, which is balanced itself, of the balanced sampler.
    """

    sampler: str = "all"
    pool: int = 0
    group_pool: int = 0

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise TrainingError(f"expected the sampler {' or '.join(SAMPLERS)}, got {self.sampler!r}")
        if self.pool < 0 or self.group_pool < 0:
            raise TrainingError(f"expected pools of 0 or more faces, got {self.pool} and {self.group_pool}")
        if self.pool and self.sampler == "balanced":
            raise TrainingError("a pool is balanced by itself: expected the sampler all, got balanced")


def epoch_order(
    labels: torch.Tensor,
    seed: int,
    epoch: int,
    sampling: Sampling | None = None,
    groups: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the rows of one epoch in order, int64; without `sampling` a permutation of all.

    Args:
        labels: (N,) int64.
        seed: of the run.
        epoch: from 0.
        sampling: what is chosen.
        groups: (N,) int64, which video each face is of; needed for `group_pool`.

    Raises:
        TrainingError: a pool per video of faces whose videos are not known.
    """
    sampling = sampling or Sampling()
    chance = torch.Generator().manual_seed(seed * 100_003 + epoch)
    rows = torch.arange(len(labels))
    if sampling.group_pool:
        if groups is None:
            raise TrainingError("expected faces of videos for a pool per video, got faces without any")
        rows = _at_most(rows, groups, sampling.group_pool, chance)
    if sampling.pool:
        rows = _of_each(rows, labels[rows], sampling.pool, chance)
    elif sampling.sampler == "balanced":
        return rows[_balanced(labels[rows], chance)]
    return rows[torch.randperm(len(rows), generator=chance)]


def batches(order: torch.Tensor, batch_size: int, first: int) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (batch number, indices) from batch `first` on; an incomplete last batch is left out."""
    for number in range(first, len(order) // batch_size):
        yield number, order[number * batch_size : (number + 1) * batch_size]


def _shuffled(rows: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    return rows[torch.randperm(len(rows), generator=chance)]


def _members(kinds: torch.Tensor) -> list[torch.Tensor]:
    """Return the places of every kind that there is, kinds in order."""
    order = torch.argsort(kinds, stable=True)
    return list(order.split(torch.unique(kinds, return_counts=True)[1].tolist()))


def _at_most(rows: torch.Tensor, groups: torch.Tensor, most: int, chance: torch.Generator) -> torch.Tensor:
    return torch.cat([_shuffled(rows[of], chance)[:most] for of in _members(groups[rows])]).sort().values


def _of_each(rows: torch.Tensor, labels: torch.Tensor, count: int, chance: torch.Generator) -> torch.Tensor:
    """Take `count` rows of every class; a class of fewer has each face as often, give or take one."""
    parts = []
    for of in _members(labels):
        rounds = -(-count // len(of))
        parts.append(torch.cat([_shuffled(rows[of], chance) for _ in range(rounds)])[:count])
    return torch.cat(parts)


def _balanced(labels: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    members = _members(labels)
    drawn = torch.randint(len(members), (len(labels),), generator=chance)
    chosen = torch.empty(len(labels), dtype=torch.int64)
    for kind, of in enumerate(members):
        places = (drawn == kind).nonzero().squeeze(1)
        chosen[places] = of[torch.randint(len(of), (len(places),), generator=chance)]
    return chosen
