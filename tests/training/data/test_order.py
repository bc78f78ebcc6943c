"""Which faces an epoch trains on: all, balanced, or a pool of every class and video."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_fer.errors import TrainingError
from training.data.order import Sampling, epoch_order

LABELS = torch.tensor([0] * 300 + [2] * 40 + [5] * 7)
SAMPLINGS = [
    Sampling(),
    Sampling(sampler="balanced"),
    Sampling(pool=50),
    Sampling(pool=20, group_pool=6),
    Sampling(group_pool=6),
]
GROUPS = torch.arange(347) % 23


def test_all_faces_come_in_the_order_that_recorded_runs_have() -> None:
    order = epoch_order(torch.zeros(28_000), seed=3, epoch=7)
    expected = torch.randperm(28_000, generator=torch.Generator().manual_seed(3 * 100_003 + 7))
    assert torch.equal(order, expected)
    # Recorded runs and resumed ones depend on these very numbers.
    assert epoch_order(torch.zeros(12), 3, 7).tolist() == [8, 10, 7, 2, 1, 5, 11, 9, 3, 4, 6, 0]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_an_epoch_is_a_function_of_seed_and_epoch(sampling: Sampling) -> None:
    order = epoch_order(LABELS, 1, 2, sampling, GROUPS)
    torch.rand(5)
    assert torch.equal(epoch_order(LABELS, 1, 2, sampling, GROUPS), order)
    assert not torch.equal(epoch_order(LABELS, 1, 3, sampling, GROUPS), order)
    assert not torch.equal(epoch_order(LABELS, 2, 2, sampling, GROUPS), order)
    assert order.dtype == torch.int64


def test_balanced_makes_every_class_as_likely() -> None:
    drawn = torch.cat([epoch_order(LABELS, 0, epoch, Sampling(sampler="balanced")) for epoch in range(60)])
    assert len(drawn) == 60 * len(LABELS)
    shares = torch.bincount(LABELS[drawn], minlength=6) / len(drawn)
    # 20,820 draws: the standard deviation of a share of a third is 0.0033.
    np.testing.assert_allclose(shares.numpy(), [1 / 3, 0, 1 / 3, 0, 0, 1 / 3], atol=0.014)
    within = torch.bincount(drawn, minlength=len(LABELS)).double()
    for label in (0, 2, 5):
        counts = within[label == LABELS]
        expected = len(drawn) / 3 / len(counts)
        assert float((counts - expected).abs().max()) < 5 * expected**0.5


def test_a_balanced_epoch_has_no_pattern() -> None:
    drawn = LABELS[epoch_order(LABELS, 0, 0, Sampling(sampler="balanced"))]
    same = float((drawn[1:] == drawn[:-1]).double().mean())
    assert 0.2 < same < 0.47  # a third by chance


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(any),
    pool=st.integers(1, 40),
    seed=st.integers(0, 9),
)
def test_a_pool_has_as_many_of_every_class(sizes: list[int], pool: int, seed: int) -> None:
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    order = epoch_order(labels, seed, 0, Sampling(pool=pool))
    counts = torch.bincount(labels[order], minlength=len(sizes)).tolist()
    assert counts == [pool if size else 0 for size in sizes]
    uses = torch.bincount(order, minlength=len(labels))
    for label, size in enumerate(sizes):
        if size:  # as often each, give or take one
            used = uses[labels == label]
            assert int(used.max()) - int(used.min()) <= 1
    if sum(bool(size) for size in sizes) > 1 and pool > 20:
        assert labels[order].tolist() != sorted(labels[order].tolist())


def test_another_epoch_has_other_faces_of_a_large_class() -> None:
    first, second = (set(epoch_order(LABELS, 0, epoch, Sampling(pool=30)).tolist()) for epoch in (0, 1))
    assert len(first & second & set(range(300))) < 15


def test_a_video_has_no_more_than_its_share() -> None:
    groups = torch.tensor([0] * 200 + [1] * 100 + [2] * 47)
    order = epoch_order(LABELS, 0, 0, Sampling(group_pool=60), groups)
    assert torch.bincount(groups[order]).tolist() == [60, 60, 47]
    assert len(set(order.tolist())) == 167
    pooled = epoch_order(LABELS, 0, 0, Sampling(pool=500, group_pool=60), groups)
    assert torch.bincount(LABELS[pooled]).tolist() == [500, 0, 500, 0, 0, 500]
    assert len(set(pooled[groups[pooled] == 0].tolist())) == 60


def test_impossible_samplings_are_refused() -> None:
    with pytest.raises(TrainingError, match="sampler all or balanced, got 'weighted'"):
        Sampling(sampler="weighted")
    with pytest.raises(TrainingError, match="balanced by itself"):
        Sampling(sampler="balanced", pool=5)
    with pytest.raises(TrainingError, match="0 or more faces"):
        Sampling(pool=-1)
    with pytest.raises(TrainingError, match="expected faces of videos"):
        epoch_order(LABELS, 0, 0, Sampling(group_pool=5))
