"""What is left out of a training set or made wrong in it: imbalance, subsets, label noise, duplicates."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_fer.errors import TrainingError
from training.data.faces import FaceTensors, drop_duplicates
from training.data.imbalance import imbalanced_counts, imbalanced_rows
from training.data.noise import add_noise
from training.data.subset import stratified_counts, stratified_rows

# RAF-DB's training faces in the order of this project: neutral, happiness, surprise, sadness, anger, ...
RAFDB = torch.tensor([2524, 4772, 1290, 1982, 705, 717, 281])
BY_SIZE = [1, 0, 3, 2, 5, 4, 6]  # happiness, neutral, sadness, surprise, disgust, anger, fear


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        (50, [4772, 2108, 1382, 751, 349, 286, 95]),
        (100, [4772, 1878, 1097, 531, 219, 160, 47]),
        (150, [4772, 1755, 958, 434, 167, 114, 31]),
    ],
)
def test_the_counts_of_rafdb_at_the_published_factors(factor: int, expected: list[int]) -> None:
    assert imbalanced_counts(RAFDB, factor)[BY_SIZE].tolist() == expected


def test_a_factor_below_the_sets_own_is_refused_with_it() -> None:
    with pytest.raises(
        TrainingError, match=r"at least 16\.98, which the set has already \(4772 to 281 faces\)"
    ):
        imbalanced_counts(RAFDB, 16.9)
    for own in (4772 / 281, 16.98):  # what the refusal prints is enough
        assert imbalanced_counts(RAFDB, own).tolist() == RAFDB.tolist()
    for factor in (float("nan"), float("inf")):
        with pytest.raises(TrainingError):
            imbalanced_counts(RAFDB, factor)
    with pytest.raises(TrainingError, match="leaves a class of 281 faces empty"):
        imbalanced_counts(RAFDB, 5000)
    with pytest.raises(TrainingError, match="at least two classes"):
        imbalanced_counts(torch.tensor([0, 5]), 3)


def test_exact_quotients_are_not_floored_away() -> None:
    assert imbalanced_counts(torch.full((7,), 5000), 50)[-1] == 100
    assert imbalanced_counts(torch.full((4,), 1000), 1000).tolist() == [1000, 100, 10, 1]


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 80), min_size=2, max_size=8),
    stretch=st.floats(1.0, 3.0),
    seed=st.integers(0, 4),
)
def test_imbalance_takes_faces_and_adds_none(sizes: list[int], stretch: float, seed: int) -> None:
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    factor = stretch * max(sizes) / min(sizes)
    if factor > max(sizes):
        return
    rows = imbalanced_rows(labels, factor, seed)
    assert rows.tolist() == sorted(set(rows.tolist()))
    counts = torch.bincount(labels[rows], minlength=len(sizes))
    assert counts.tolist() == imbalanced_counts(torch.tensor(sizes), factor).tolist()
    assert int(counts.max()) == max(sizes)
    assert max(sizes) / (int(counts.min()) + 1) <= factor * 1.001 <= max(sizes) / int(counts.min()) * 1.002
    assert torch.equal(rows, imbalanced_rows(labels, factor, seed))


def test_another_seed_leaves_other_faces() -> None:
    labels = torch.arange(3).repeat_interleave(200)
    chosen = {tuple(imbalanced_rows(labels, 20, seed).tolist()) for seed in range(4)}
    chosen |= {tuple(stratified_rows(labels, 240, seed).tolist()) for seed in range(4)}
    assert len(chosen) == 8


@settings(deadline=None)
@given(sizes=st.lists(st.integers(0, 200), min_size=1, max_size=8).filter(any), share=st.floats(0.01, 1))
def test_a_subset_keeps_the_shares(sizes: list[int], share: float) -> None:
    total = sum(sizes)
    size = max(1, int(share * total))
    counts = stratified_counts(torch.tensor(sizes), size)
    assert int(counts.sum()) == size
    for count, whole in zip(counts.tolist(), sizes, strict=True):
        assert count <= whole and abs(count - size * whole / total) < 1
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    rows = stratified_rows(labels, size, 0)
    assert len(set(rows.tolist())) == size
    assert torch.bincount(labels[rows], minlength=len(sizes)).tolist() == counts.tolist()


def test_a_subset_of_everything_is_everything_and_of_more_refused() -> None:
    labels = torch.tensor([2, 0, 1, 1])
    assert stratified_rows(labels, 4, 0).tolist() == [0, 1, 2, 3]
    for size in (0, 5):
        with pytest.raises(TrainingError, match=f"subset of 1 to 4 faces, got {size}"):
            stratified_rows(labels, size, 0)


def faces(count: int, classes: int = 8) -> FaceTensors:
    """Return one-colour faces with votes."""
    labels = torch.arange(count) % classes
    crops = torch.arange(count)[:, None, None, None].expand(-1, 2, 2, 3).to(torch.uint8).contiguous()
    votes = torch.full((count, classes), 2.0)
    votes[torch.arange(count), labels] = 9.0
    return FaceTensors(crops, labels, votes)


@settings(deadline=None)
@given(count=st.integers(1, 120), classes=st.integers(2, 8), rate=st.floats(0, 1), seed=st.integers(0, 50))
def test_noise_makes_exactly_its_share_wrong(count: int, classes: int, rate: float, seed: int) -> None:
    clean = faces(count, classes)
    before = clean.labels.clone()
    noisy = add_noise(clean, rate, classes, seed)
    wrong = (noisy.faces.labels != before).nonzero().squeeze(1)
    assert torch.equal(wrong, noisy.rows) and len(wrong) == round(rate * count)
    assert int(noisy.faces.labels.min()) >= 0 and int(noisy.faces.labels.max()) < classes
    assert torch.equal(clean.labels, before)  # what is given is not changed
    votes, old = noisy.faces.votes, clean.votes
    assert votes is not None and old is not None
    assert torch.equal(votes[wrong].argmax(dim=1), noisy.faces.labels[wrong])
    assert (votes[wrong].sum(dim=1) == 1).all() and ((votes[wrong] == 0) | (votes[wrong] == 1)).all()
    right = noisy.faces.labels == before
    assert torch.equal(votes[right], old[right])
    assert torch.equal(add_noise(clean, rate, classes, seed).faces.labels, noisy.faces.labels)


def test_every_other_label_is_as_likely() -> None:
    clean = FaceTensors(torch.zeros(42_000, 1, 1, 3, dtype=torch.uint8), torch.full((42_000,), 3), None)
    noisy = add_noise(clean, 1.0, 7, 0).faces
    counts = torch.bincount(noisy.labels, minlength=7).tolist()
    assert counts[3] == 0 and noisy.votes is None
    assert all(abs(count - 7000) < 400 for count in counts[:3] + counts[4:])  # five standard deviations


def test_noise_differs_between_seeds_and_impossible_rates_are_refused() -> None:
    assert len({tuple(add_noise(faces(60), 0.2, 8, seed).rows.tolist()) for seed in range(5)}) == 5
    for rate in (-0.1, 1.1, float("nan")):
        with pytest.raises(TrainingError, match="0 to 1"):
            add_noise(faces(4), rate, 8, 0)
    with pytest.raises(TrainingError, match="two classes"):
        add_noise(faces(4), 0.5, 1, 0)


def test_noise_and_subset_of_one_seed_have_nothing_in_common() -> None:
    labels = torch.zeros(1000, dtype=torch.int64)
    rows = set(stratified_rows(labels, 100, 0).tolist())
    crops = torch.zeros(1000, 1, 1, 3, dtype=torch.uint8)
    noisy = set(add_noise(FaceTensors(crops, labels, None), 0.1, 8, 0).rows.tolist())
    assert 1 <= len(rows & noisy) <= 25  # ten by chance


def test_duplicates_are_dropped_against_several_sets() -> None:
    train = faces(10)
    kept = drop_duplicates(train, train.take(torch.tensor([1, 2])), train.take(torch.tensor([2, 7])))
    assert kept.crops[:, 0, 0, 0].tolist() == [0, 3, 4, 5, 6, 8, 9]
    assert drop_duplicates(train) is train  # nothing to drop, nothing copied


def test_taking_rows_takes_everything_of_them() -> None:
    whole = faces(6)
    both = torch.rand(6, 2)
    groups = torch.arange(6)
    part = FaceTensors(whole.crops, whole.labels, whole.votes, both, groups).take(torch.tensor([4, 1]))
    assert part.labels.tolist() == [4, 1] and part.crops[:, 0, 0, 0].tolist() == [4, 1]
    assert part.votes is not None and part.votes.argmax(dim=1).tolist() == [4, 1]
    assert part.valence_arousal is not None and torch.equal(part.valence_arousal, both[[4, 1]])
    assert part.groups is not None and part.groups.tolist() == [4, 1]
