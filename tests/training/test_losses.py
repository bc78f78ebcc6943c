"""GReFEL's losses against NumPy, their gradients, and where the anchors are placed."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.data.targets import target_distribution
from training.methods.grefel import (
    GrefelOptions,
    Stage,
    anchor_loss,
    centre_loss,
    class_weights,
    classification_loss,
    loss_terms,
    place_anchors,
    smooth,
)
from training.methods.method import Batch, Terms
from training.models import HeadOutput

BATCH, CLASSES, ANCHORS, DIM = 6, 4, 3, 5


def generated(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distribution(seed: int = 0) -> torch.Tensor:
    return generated(BATCH, CLASSES, seed=seed).softmax(dim=-1)


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.tensor([0, 1, 2, 3, 1, 1])


def head_output(seed: int = 0) -> tuple[HeadOutput, torch.Tensor]:
    """Return what a head might say, and its anchors."""
    embedding, anchors = generated(BATCH, DIM, seed=seed), generated(CLASSES, ANCHORS, DIM, seed=seed + 1)
    distances = (embedding[:, None, None] - anchors).square().sum(dim=-1).sqrt()
    weight = torch.full((BATCH,), 0.5)
    output = HeadOutput(
        distribution(seed + 2),
        distribution(seed + 3),
        embedding,
        weight,
        weight,
        distances,
        distribution(seed + 11),
        distribution(seed + 3).log(),
    )
    return output, anchors


def judge(
    options: GrefelOptions,
    output: HeadOutput,
    anchors: torch.Tensor | None,
    labels: torch.Tensor,
    target: torch.Tensor,
    balanced: bool,
    weights: torch.Tensor | None = None,
    trust: float = 1.0,
) -> Terms:
    """Return the terms of a batch of which only labels and targets matter."""
    batch = Batch(faces=target, labels=labels, targets=target, rows=labels)
    return loss_terms(options, output, anchors, batch, weights, Stage(balanced=balanced, trust=trust))


def cross_entropy_reference(p: np.ndarray, target: np.ndarray) -> float:
    rows = []
    for row, wanted in zip(p, target, strict=True):
        rows.append(-sum(t * math.log(max(value, 1e-12)) for value, t in zip(row, wanted, strict=True)))
    return sum(rows) / len(rows)


def anchor_reference(anchors: np.ndarray, margin: float) -> float:
    flat = anchors.reshape(-1, anchors.shape[-1])
    pairs = list(itertools.permutations(range(len(flat)), 2))
    terms = [min(float(((flat[p] - flat[q]) ** 2).mean()), margin) for p, q in pairs]
    return -sum(terms) / len(pairs)


def centre_reference(e: np.ndarray, anchors: np.ndarray, labels: np.ndarray) -> float:
    nearest = [
        min(float(((row - anchor) ** 2).mean()) for anchor in anchors[label])
        for row, label in zip(e, labels, strict=True)
    ]
    return sum(nearest) / len(nearest)


def test_classification_is_the_mean_cross_entropy() -> None:
    p, target = distribution(), distribution(1)
    expected = cross_entropy_reference(p.numpy(), target.numpy())
    assert float(classification_loss(p, target)) == pytest.approx(expected, rel=1e-12)


def test_classes_are_weighted_in_the_cross_entropy() -> None:
    p, target = distribution(), distribution(1)
    weights = torch.tensor([0.5, 1.0, 2.0, 4.0]).double()
    rows = -(weights.numpy() * target.numpy() * np.log(p.numpy())).sum(axis=1)
    assert float(classification_loss(p, target, weights)) == pytest.approx(rows.mean(), rel=1e-12)


def test_the_loss_weights_the_classes_of_either_distribution(labels: torch.Tensor) -> None:
    output, anchors = head_output(4)
    target = target_distribution(labels, None, CLASSES).double()
    weights = torch.tensor([0.5, 1.0, 2.0, 4.0]).double()
    for balanced, judged in ((True, output.probabilities), (False, output.primary)):
        rows = -(weights.numpy() * target.numpy() * np.log(judged.numpy())).sum(axis=1)
        terms = judge(GrefelOptions(smoothing=0.0), output, anchors, labels, target, balanced, weights)
        assert float(terms["classification"]) == pytest.approx(rows.mean(), rel=1e-12)


@pytest.mark.parametrize("balance", [0.0, 0.25, 0.5, 1.0])
def test_class_weights_fall_with_the_count_and_average_to_one(balance: float) -> None:
    labels = torch.tensor([0] * 90 + [1] * 9 + [2])
    weights = class_weights(torch.bincount(labels, minlength=4).float(), balance).double().numpy()
    assert weights[labels.numpy()].mean() == pytest.approx(1.0, rel=1e-6)
    assert weights[1] / weights[0] == pytest.approx(10.0**balance, rel=1e-6)
    assert weights[2] / weights[1] == pytest.approx(9.0**balance, rel=1e-6)
    assert weights[3] == weights[2]  # absent: like a single face


def test_classification_survives_a_wrong_certainty() -> None:
    p = torch.tensor([[1.0, 0.0]], requires_grad=True)
    loss = classification_loss(p, torch.tensor([[0.0, 1.0]]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-math.log(1e-12), rel=1e-5)
    assert torch.isfinite(p.grad).all()


@pytest.mark.parametrize("margin", [0.5, 1.7, 4.0, 1e9])
def test_the_anchor_term_loops_over_ordered_distinct_pairs(margin: float) -> None:
    anchors = generated(CLASSES, ANCHORS, DIM, seed=2)
    expected = anchor_reference(anchors.numpy(), margin)
    assert float(anchor_loss(anchors, margin)) == pytest.approx(expected, rel=1e-12)


def test_the_anchor_term_has_a_floor_and_no_pull_beyond_the_margin() -> None:
    anchors = (100.0 * generated(CLASSES, ANCHORS, DIM, seed=3)).requires_grad_()
    loss = anchor_loss(anchors, margin=4.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-4.0)
    assert float(anchors.grad.abs().max()) == 0.0


def test_the_centre_term_takes_the_nearest_anchor_of_the_own_class(labels: torch.Tensor) -> None:
    output, anchors = head_output()
    expected = centre_reference(output.embedding.numpy(), anchors.numpy(), labels.numpy())
    assert float(centre_loss(output.distances, labels, DIM)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("balanced", [True, False])
def test_the_total_is_the_weighted_sum(labels: torch.Tensor, balanced: bool) -> None:
    options = GrefelOptions(
        classification=0.7, anchor=0.2, centre=1.9, primary=0.6, similarity=0.4, smoothing=0.11, margin=1.5
    )
    output, anchors = head_output(4)
    target = target_distribution(labels, None, CLASSES).double()
    terms = judge(options, output, anchors, labels, target, balanced)
    smoothed = 0.89 * target.numpy() + 0.11 / CLASSES
    judged = output.probabilities if balanced else output.primary
    expected = {
        "classification": cross_entropy_reference(judged.numpy(), smoothed),
        "anchor": anchor_reference(anchors.numpy(), 1.5) if balanced else 0.0,
        "centre": centre_reference(output.embedding.numpy(), anchors.numpy(), labels.numpy())
        if balanced
        else 0.0,
        "primary": cross_entropy_reference(output.primary.numpy(), smoothed) if balanced else 0.0,
        "similarity": cross_entropy_reference(output.by_anchor.numpy(), smoothed) if balanced else 0.0,
    }
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(value, rel=1e-9), name
    total = sum(getattr(options, name) * value for name, value in expected.items())
    assert float(terms["total"]) == pytest.approx(total, rel=1e-9)


def test_a_head_without_anchors_trains_its_primary_distribution(labels: torch.Tensor) -> None:
    output = head_output()[0]
    target = target_distribution(labels, None, CLASSES).double()
    terms = judge(GrefelOptions(), output, None, labels, target, False)
    assert float(terms["total"]) == pytest.approx(
        float(classification_loss(output.primary, smooth(target, 0.11)))
    )


def test_the_gradients_are_those_of_the_formulas(labels: torch.Tensor) -> None:
    anchors = generated(CLASSES, ANCHORS, DIM, seed=5).requires_grad_()
    embedding = generated(BATCH, DIM, seed=6).requires_grad_()
    logits = generated(BATCH, CLASSES, seed=7).requires_grad_()
    target = distribution(8)

    def total(a: torch.Tensor, e: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        distances = (e[:, None, None] - a).square().sum(dim=-1).sqrt()
        weight = torch.full((BATCH,), 0.5)
        t = (-distances).flatten(1).softmax(dim=-1).reshape(distances.shape).sum(dim=-1)
        output = HeadOutput(z.softmax(dim=-1), z.softmax(dim=-1), e, weight, weight, distances, t, z)
        return judge(GrefelOptions(margin=2.0, similarity=0.5), output, a, labels, target, True)["total"]

    assert torch.autograd.gradcheck(total, (anchors, embedding, logits))


@given(smoothing=st.floats(0.0, 0.99), seed=st.integers(0, 100))
def test_smoothed_rows_sum_to_one(smoothing: float, seed: int) -> None:
    smoothed = smooth(distribution(seed), smoothing)
    torch.testing.assert_close(smoothed.sum(dim=-1), torch.ones(BATCH).double(), rtol=0, atol=1e-12)
    assert float(smoothed.min()) >= smoothing / CLASSES - 1e-12


def test_targets_are_votes_where_there_are_any(labels: torch.Tensor) -> None:
    one_hot = target_distribution(labels, None, CLASSES)
    assert one_hot.argmax(dim=-1).tolist() == labels.tolist()
    assert one_hot.sum(dim=-1).tolist() == [1.0] * BATCH
    votes = torch.tensor([[3.0, 1.0, 0.0, 0.0], [0.0, 0.0, 5.0, 5.0]])
    expected = [[0.75, 0.25, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    assert target_distribution(labels[:2], votes, CLASSES).tolist() == expected


def test_few_votes_are_left_out_of_the_targets(labels: torch.Tensor) -> None:
    votes = torch.tensor([[3.0, 1.0, 2.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 2.0, 1.0, 1.0]])
    targets = target_distribution(labels[:3], votes, CLASSES, min_votes=2)
    # The second face would be left without a vote, so that it keeps what it has.
    expected = torch.tensor([[0.6, 0.0, 0.4, 0.0], [0.5, 0.5, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    torch.testing.assert_close(targets, expected)


@pytest.fixture
def clusters() -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of three classes: 40, 2 distinct ones seen 6 times, and none; (46, 5) and (46,)."""
    many = generated(40, DIM, seed=9) + 4.0
    few = generated(2, DIM, seed=10).repeat(3, 1) - 4.0
    return torch.cat([many, few]).float(), torch.tensor([0] * 40 + [1] * 6)


def test_anchors_start_on_embeddings_of_their_own_class(clusters: tuple[torch.Tensor, torch.Tensor]) -> None:
    embeddings, labels = clusters
    placed = place_anchors(embeddings, labels, torch.zeros(3, 10, DIM), seed=0)
    own = {tuple(row) for row in embeddings[labels == 0].tolist()}
    assert len({tuple(row) for row in placed[0].tolist()} & own) == 10
    few = {tuple(row) for row in embeddings[labels == 1].tolist()}
    assert {tuple(row) for row in placed[1, :2].tolist()} == few


def test_anchors_are_farthest_points(clusters: tuple[torch.Tensor, torch.Tensor]) -> None:
    embeddings, labels = clusters
    own = embeddings[labels == 0].numpy()
    placed = place_anchors(embeddings, labels, torch.zeros(3, 4, DIM), seed=0)[0].numpy()
    first = ((own - own.mean(axis=0)) ** 2).sum(axis=1).argmin()
    np.testing.assert_array_equal(placed[0], own[first])
    for number in range(1, 4):
        gaps = [min(((row - chosen) ** 2).sum() for chosen in placed[:number]) for row in own]
        np.testing.assert_array_equal(placed[number], own[int(np.argmax(gaps))])


def test_small_and_absent_classes_are_filled_up(clusters: tuple[torch.Tensor, torch.Tensor]) -> None:
    embeddings, labels = clusters
    placed = place_anchors(embeddings, labels, torch.zeros(3, 10, DIM), seed=0)
    assert torch.isfinite(placed).all()
    assert len({tuple(row) for row in placed.flatten(0, 1).tolist()}) == 30  # no two alike
    scale = embeddings.std(dim=0)
    for label, mean in ((1, embeddings[labels == 1].mean(dim=0)), (2, embeddings.mean(dim=0))):
        filled = placed[label, 2:] if label == 1 else placed[label]
        assert ((filled - mean).abs() < 5 * scale).all()
        assert float((filled - mean).abs().max()) > 0.5 * float(scale.min())


def test_placing_anchors_depends_on_the_seed_alone(clusters: tuple[torch.Tensor, torch.Tensor]) -> None:
    embeddings, labels = clusters
    first = place_anchors(embeddings, labels, torch.zeros(3, 10, DIM), seed=3)
    torch.manual_seed(99)
    assert torch.equal(place_anchors(embeddings, labels, torch.ones(3, 10, DIM), seed=3), first)
    assert not torch.equal(place_anchors(embeddings, labels, torch.zeros(3, 10, DIM), seed=4), first)
