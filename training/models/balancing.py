"""The reliability-balancing head: primary distribution, anchors, attentive correction and their mixture.

Formulas: GReFEL Eq. 9-19 with the readings of this project: entropies divided by log N, one joint softmax
over all anchors, per-sample attentive correction, guarded square roots and divisions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import nn

EPSILON = 1e-12
# Below this sum both confidences are rounding noise of a uniform distribution, and the mix is one half each.
CONFIDENCE_FLOOR = 1e-6


class HeadOutput(NamedTuple):
    """What a network says of a batch (B faces, N classes, D embedding, K anchors per class)."""

    probabilities: torch.Tensor  # (B, N) corrected distribution, Eq. 19
    primary: torch.Tensor  # (B, N) distribution before balancing
    embedding: torch.Tensor  # (B, D) e
    correction_weight: torch.Tensor  # (B,) c_t / (c_l + c_t); 0 without a balancing head
    anchor_weight: torch.Tensor  # (B,) c_g / (c_g + c_a); 0 without a balancing head
    distances: torch.Tensor | None  # (B, N, K) d_cj to every anchor
    by_anchor: torch.Tensor | None  # (B, N) t_g, what the anchors alone say
    logits: torch.Tensor  # (B, N) whose softmax `primary` is, but for a temperature
    correction: torch.Tensor | None = None  # (B, N) t, what anchors and attention say together


def confidence(probabilities: torch.Tensor) -> torch.Tensor:
    """Return 1 - H(p) / log N per row of (B, N), in [0, 1]; 0 log 0 = 0 (Eq. 11, read with log N)."""
    classes = probabilities.shape[-1]
    entropy = -(probabilities * probabilities.clamp_min(EPSILON).log()).sum(dim=-1)
    return (1.0 - entropy / math.log(classes)).clamp(0.0, 1.0)


def first_weight(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return first / (first + second) per sample; one half where both confidences vanish (Eq. 18, 19)."""
    total = first + second
    return torch.where(total > CONFIDENCE_FLOOR, first / total.clamp_min(CONFIDENCE_FLOOR), 0.5)


def mix(first: torch.Tensor, second: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return weight * first + (1 - weight) * second for distributions (B, N) and weights (B,)."""
    return weight[:, None] * first + (1.0 - weight)[:, None] * second


class AnchorCorrection(nn.Module):
    """t_g: similarity to K learnable anchors per class, joint softmax of -distance / delta (Eq. 13-15)."""

    def __init__(self, dim: int, classes: int, anchors: int, delta: float) -> None:
        super().__init__()
        self.delta = delta
        # Replaced by the class's own embeddings before they are first used; never zeros, which would leave
        # one winner per class.
        self.anchors = nn.Parameter(torch.randn(classes, anchors, dim))

    def forward(self, embedding: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map e (B, D) to t_g (B, N) and the distances d (B, N, K)."""
        squared = (embedding[:, None, None, :] - self.anchors).square().sum(dim=-1)
        distances = squared.clamp_min(EPSILON).sqrt()
        similarity = (-distances / self.delta).flatten(1).softmax(dim=-1)
        return similarity.reshape(distances.shape).sum(dim=-1), distances


class AttentiveCorrection(nn.Module):
    """t_a: self-attention over the one token e of a sample, softmax over N * m, summed over m (Eq. 16-17).

    A softmax over a single key is exactly 1, so per-sample attention is a linear map of e and its query and
    key projections never receive a gradient: only the value projection exists. Attending over the batch, as
    the released code does, would make a face's answer depend on its neighbours.
    """

    def __init__(self, dim: int, classes: int, slots: int) -> None:
        super().__init__()
        self.classes = classes
        self.slots = slots
        self.value = nn.Linear(dim, classes * slots)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Map e (B, D) to t_a (B, N)."""
        joint = self.value(embedding).softmax(dim=-1)
        return joint.reshape(-1, self.classes, self.slots).sum(dim=-1)


class PrimaryClassifier(nn.Sequential):
    """MLP with two hidden layers of 64: Linear - ReLU - BN - dropout (BN first avoids the variance shift).

    `printed_order` puts dropout before BN, as GReFEL Sec. 3 prints it.
    """

    def __init__(
        self, dim: int, classes: int, *, hidden: int = 64, dropout: float = 0.5, printed_order: bool = False
    ) -> None:
        layers: list[nn.Module] = []
        for width_in in (dim, hidden):
            tail: list[nn.Module] = [nn.BatchNorm1d(hidden), nn.Dropout(dropout)]
            layers += [nn.Linear(width_in, hidden), nn.ReLU(), *(tail[::-1] if printed_order else tail)]
        super().__init__(*layers, nn.Linear(hidden, classes))


BALANCING = ("none", "anchors", "attention", "both")


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancingOptions:
    """What the head is made of.

    `balancing` leaves out one correction or both, as in GReFEL Table 2; without any, `probabilities` are
    `primary`. `anchors` is K per class, `delta` the temperature of their similarity (Eq. 14), `slots` the m
    of the attentive correction. `dropout` is the primary classifier's, before its BatchNorm where
    `printed_order` is set.
    """

    balancing: str = "both"
    anchors: int = 10
    delta: float = 1.0
    slots: int = 5
    dropout: float = 0.5
    printed_order: bool = False


class ReliabilityBalancing(nn.Module):
    """Primary classifier, both corrections and the confidence-weighted mixtures (Eq. 9-19).

    A `temperature` T other than 1 turns the corrected distribution p into p^(1/T), normalised
    (Guo et al. 2017): labels stay, probabilities become as sure as they are right.
    """

    takes_map: ClassVar[bool] = False

    def __init__(
        self, dim: int, classes: int, options: BalancingOptions, *, temperature: float = 1.0
    ) -> None:
        o = options
        if o.balancing not in BALANCING:
            raise ValueError(f"expected balancing {', '.join(BALANCING)}, got {o.balancing!r}")
        super().__init__()
        self.temperature = temperature
        self.primary = PrimaryClassifier(dim, classes, dropout=o.dropout, printed_order=o.printed_order)
        self.anchor_correction = (
            AnchorCorrection(dim, classes, o.anchors, o.delta) if o.balancing in ("anchors", "both") else None
        )
        self.attentive_correction = (
            AttentiveCorrection(dim, classes, o.slots) if o.balancing in ("attention", "both") else None
        )

    def forward(self, embedding: torch.Tensor) -> HeadOutput:
        """Map e (B, D) to the corrected distribution and everything it was made of."""
        logits = self.primary(embedding)
        primary = logits.softmax(dim=-1)
        by_anchor, distances, correction, anchor_weight = self.correct(embedding)
        if correction is None:
            correction_weight, probabilities = anchor_weight, primary
        else:
            correction_weight = first_weight(confidence(correction), confidence(primary))
            probabilities = mix(correction, primary, correction_weight)
        if self.temperature != 1.0:
            probabilities = (probabilities.clamp_min(EPSILON).log() / self.temperature).softmax(dim=-1)
        return HeadOutput(
            probabilities=probabilities,
            primary=primary,
            embedding=embedding,
            correction_weight=correction_weight,
            anchor_weight=anchor_weight,
            distances=distances,
            by_anchor=by_anchor,
            logits=logits,
            correction=correction,
        )

    def correct(
        self, embedding: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None, torch.Tensor]:
        """Return t_g (B, N), the distances (B, N, K), t (B, N) and the weight of t_g in it (B,).

        What the head does not have is None, and the weight 1 or 0.
        """
        alone = torch.zeros(embedding.shape[0], device=embedding.device)
        if self.anchor_correction is None:
            attention = self.attentive_correction
            return None, None, None if attention is None else attention(embedding), alone
        by_anchor, distances = self.anchor_correction(embedding)
        if self.attentive_correction is None:
            return by_anchor, distances, by_anchor, alone + 1.0
        by_attention = self.attentive_correction(embedding)
        weight = first_weight(confidence(by_anchor), confidence(by_attention))
        return by_anchor, distances, mix(by_anchor, by_attention, weight), weight
