"""GReFEL's losses and the data-driven start of its anchors (GReFEL Eq. 20-23; systems §1.7).

The published anchor loss is unbounded below and lets the anchors run away; here every pair's term is clamped
at a margin. Distances are per dimension, so the terms do not depend on the width of the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn.functional import one_hot

from training.models import HeadOutput
from training.models.balancing import EPSILON


@dataclass(frozen=True, slots=True, kw_only=True)
class GrefelOptions:
    """The weights of the three terms and their constants.

    `smoothing` spreads over all classes. `margin` clamps the mean squared distance per dimension of two
    anchors. During the first `warmup_epochs` only the primary distribution is trained, then the anchors are
    placed on the training faces' embeddings and the full loss begins. `min_votes` drops the emotions with
    fewer votes from a face's target. `balance` weights class c of n_c faces by n_c to the power of -balance:
    0 leaves the classes as they are, 1 weights them all alike. `primary` is the weight of the classification
    loss of the primary distribution itself, which the mixture alone lets wither; `similarity` that of the
    anchors' own distribution t_g, which the mixture alone silences. `training_delta` is the
    delta of the anchors' similarity while training, where it is not the network's own: training adapts to
    any delta until the anchors hardly count, and a smaller one afterwards gives them their say back.
    """

    classification: float = 1.0
    anchor: float = 1.0
    centre: float = 1.0
    primary: float = 0.0
    similarity: float = 0.0
    smoothing: float = 0.11
    margin: float = 4.0
    warmup_epochs: int = 1
    soft_targets: bool = True
    min_votes: int = 1
    balance: float = 0.0
    training_delta: float | None = None


class LossTerms(NamedTuple):
    """The unweighted terms, each a scalar, and their weighted sum; `embedding` is distillation's."""

    total: torch.Tensor
    classification: torch.Tensor
    anchor: torch.Tensor
    centre: torch.Tensor
    primary: torch.Tensor
    similarity: torch.Tensor
    embedding: torch.Tensor


def smooth(target: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Return (1 - eps) target + eps / N for distributions (B, N)."""
    return (1.0 - smoothing) * target + smoothing / target.shape[-1]


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


def class_weights(labels: torch.Tensor, classes: int, balance: float) -> torch.Tensor:
    """Return (N,) weights proportional to n_c ** -balance whose mean over the faces' labels (M,) is 1.

    An absent class is weighted like one of a single face.
    """
    counts = torch.bincount(labels, minlength=classes).float()
    weights = counts.clamp_min(1.0) ** -balance
    return weights * counts.sum() / (weights * counts).sum()


def classification_loss(
    probabilities: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the mean over the batch of -sum w target log p, p clamped at 1e-12 (Eq. 20 as a mean).

    Args:
        probabilities: (B, N). target: (B, N).
        weights: (N,) of the classes, all 1 when left out.
    """
    terms = target * probabilities.clamp_min(EPSILON).log()
    return -(terms if weights is None else terms * weights).sum(dim=-1).mean()


def anchor_loss(anchors: torch.Tensor, margin: float) -> torch.Tensor:
    """Return minus the mean of min(||a_p - a_q||^2 / D, margin) over ordered distinct pairs (Eq. 21).

    Args:
        anchors: (N, K, D).
        margin: clamp of one pair's mean squared distance per dimension.
    """
    flat = anchors.flatten(0, 1)
    count, dim = flat.shape
    squared = (flat[:, None] - flat[None]).square().sum(dim=-1) / dim
    # The diagonal is exactly zero and drops out of the sum.
    return -squared.clamp_max(margin).sum() / (count * (count - 1))


def centre_loss(distances: torch.Tensor, labels: torch.Tensor, dim: int) -> torch.Tensor:
    """Return the mean over the batch of min_k ||e - a_yk||^2 / D (Eq. 22).

    Args:
        distances: (B, N, K) from the embedding to every anchor.
        labels: (B,) class indices.
        dim: D.
    """
    own = distances[torch.arange(len(labels), device=labels.device), labels]
    return own.min(dim=-1).values.square().mean() / dim


class GrefelLoss:
    """Weighted sum of the classification, anchor and centre terms (Eq. 23)."""

    def __init__(self, options: GrefelOptions, weights: torch.Tensor | None = None) -> None:
        self.options = options
        self.weights = weights  # (N,) of the classes

    def __call__(
        self,
        output: HeadOutput,
        anchors: torch.Tensor,
        labels: torch.Tensor,
        target: torch.Tensor,
        *,
        balanced: bool,
    ) -> LossTerms:
        """Return the terms of one batch; without `balanced` only the primary distribution is trained."""
        target = smooth(target, self.options.smoothing)
        if not balanced or output.distances is None or output.by_anchor is None:
            classification = classification_loss(output.primary, target, self.weights)
            zero = torch.zeros_like(classification)
            total = self.options.classification * classification
            return LossTerms(total, classification, zero, zero, zero, zero, zero)
        classification = classification_loss(output.probabilities, target, self.weights)
        anchor = anchor_loss(anchors, self.options.margin)
        centre = centre_loss(output.distances, labels, output.embedding.shape[-1])
        primary = classification_loss(output.primary, target, self.weights)
        similarity = classification_loss(output.by_anchor, target, self.weights)
        total = (
            self.options.classification * classification
            + self.options.anchor * anchor
            + self.options.centre * centre
            + self.options.primary * primary
            + self.options.similarity * similarity
        )
        zero = torch.zeros_like(total)
        return LossTerms(total, classification, anchor, centre, primary, similarity, zero)


def place_anchors(
    embeddings: torch.Tensor, labels: torch.Tensor, anchors: torch.Tensor, seed: int
) -> torch.Tensor:
    """Return anchors (N, K, D): farthest-point samples of each class's own embeddings.

    The first is the embedding nearest the class mean, each next one the farthest from those chosen. A class
    with fewer than K distinct embeddings is filled up with its mean plus noise at the embeddings' scale.

    Args:
        embeddings: (M, D) of training faces. labels: (M,). anchors: (N, K, D), for the shape.
        seed: of the noise.
    """
    classes, per_class, dim = anchors.shape
    generator = torch.Generator().manual_seed(seed)
    scale = embeddings.std(dim=0)
    placed = torch.empty_like(anchors)
    for label in range(classes):
        own = embeddings[labels == label]
        mean = own.mean(dim=0) if len(own) else embeddings.mean(dim=0)
        chosen = farthest_points(own, mean, per_class) if len(own) else own
        noise = torch.randn(per_class - len(chosen), dim, generator=generator).to(mean) * scale
        placed[label] = torch.cat([chosen, mean + noise])
    return placed


def farthest_points(points: torch.Tensor, start: torch.Tensor, count: int) -> torch.Tensor:
    """Return up to `count` distinct rows of (M, D): the nearest to `start`, then greedily the farthest."""
    index = int((points - start).square().sum(dim=-1).argmin())
    chosen = [index]
    nearest = (points - points[index]).square().sum(dim=-1)
    while len(chosen) < count and float(nearest.max()) > 0.0:
        index = int(nearest.argmax())
        chosen.append(index)
        nearest = torch.minimum(nearest, (points - points[index]).square().sum(dim=-1))
    return points[chosen]
