"""GReFEL: classification, anchor and centre losses over the reliability-balancing head (Eq. 20-23).

The published anchor loss is unbounded below and lets the anchors run away; by default every pair's term is
clamped at a margin. Distances are per dimension, so the terms do not depend on the width of the embedding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from edge_fer.errors import TrainingError
from training.evaluation import Evaluation
from training.methods.method import Batch, Embed, Method, Moment, Rule, Terms, TrainingSet
from training.models import ExpressionNetwork, HeadOutput
from training.models.balancing import EPSILON, ReliabilityBalancing, confidence, mix

ANCHOR_FACES = 4096
VARIANTS = ("margin", "paper", "arbex")


@dataclass(frozen=True, slots=True, kw_only=True)
class GrefelOptions:
    """The weights of the terms and their constants; a term of weight 0 is off.

    `smoothing` spreads over all classes. `variant` chooses the forms of the anchor and centre terms: margin
    (ours), paper (Eq. 21 as a mean without margin) or arbex (the released code's, with its class weights, and
    with a trust in the correction that grows from 0 to 1 over the run). `margin` clamps the mean squared
    distance per dimension of two anchors. During the first `warmup_epochs` only the primary distribution is
    trained, then the anchors are placed on the training faces' embeddings and the full loss begins. `balance`
    weights class c of n_c faces by n_c to the power of -balance: 0 leaves the classes as they are, 1 weights
    them all alike. `primary` is the weight of the classification loss of the primary distribution itself,
    which the mixture alone lets wither; `similarity` that of the anchors' own distribution t_g, which the
    mixture alone silences. `training_delta` is the delta of the anchors' similarity while training, where it
    is not the network's own: training adapts to any delta until the anchors hardly count, and a smaller one
    afterwards gives them their say back.
    """

    variant: str = "margin"
    classification: float = 1.0
    anchor: float = 1.0
    centre: float = 1.0
    primary: float = 0.0
    similarity: float = 0.0
    smoothing: float = 0.11
    margin: float = 4.0
    warmup_epochs: int = 1
    balance: float = 0.0
    training_delta: float | None = None


def rules(options: GrefelOptions) -> tuple[Rule, ...]:
    """Return what has to hold of the options."""
    names = ("classification", "anchor", "centre", "primary", "similarity")
    weights = {name: getattr(options, name) for name in names}
    delta = options.training_delta
    return (
        ("variant", options.variant, " or ".join(VARIANTS), options.variant in VARIANTS),
        *((name, value, "of 0 or more", 0.0 <= value < math.inf) for name, value in weights.items()),
        ("smoothing", options.smoothing, "from 0 to below 1", 0.0 <= options.smoothing < 1.0),
        ("margin", options.margin, "above 0", options.margin > 0.0),
        ("balance", options.balance, "of 0 to 1", 0.0 <= options.balance <= 1.0),
        ("warmup_epochs", options.warmup_epochs, "of 0 or more", options.warmup_epochs >= 0),
        ("training_delta", delta, "above 0", delta is None or 0.0 < delta < math.inf),
    )


def smooth(target: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Return (1 - eps) target + eps / N for distributions (B, N)."""
    return (1.0 - smoothing) * target + smoothing / target.shape[-1]


def class_weights(counts: torch.Tensor, balance: float) -> torch.Tensor:
    """Return (N,) weights proportional to n_c ** -balance whose mean over the faces is 1.

    An absent class is weighted like one of a single face.

    Args:
        counts: (N,) float32, the faces of each class.
    """
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
        margin: clamp of one pair's mean squared distance per dimension; infinite for the printed form.
    """
    flat = anchors.flatten(0, 1)
    count, dim = flat.shape
    squared = (flat[:, None] - flat[None]).square().sum(dim=-1) / dim
    # The diagonal is exactly zero and drops out of the sum.
    return -squared.clamp_max(margin).sum() / (count * (count - 1))


def arbex_anchor_loss(anchors: torch.Tensor) -> torch.Tensor:
    """Return minus the sum over ordered class pairs, at the same index only, of ||a_cj - a_dj||^2.

    Divided by sqrt(D) K^2, as the code of ARBEx does (systems §1.6).

    Args:
        anchors: (N, K, D).
    """
    _, per_class, dim = anchors.shape
    squared = (anchors[:, None] - anchors[None]).square().sum()
    return -squared / (math.sqrt(dim) * per_class**2)


def centre_loss(distances: torch.Tensor, labels: torch.Tensor, dim: int) -> torch.Tensor:
    """Return the mean over the batch of min_k ||e - a_yk||^2 / D (Eq. 22).

    Args:
        distances: (B, N, K) from the embedding to every anchor.
        labels: (B,) class indices.
        dim: D.
    """
    return nearest_own(distances, labels).square().mean() / dim


def arbex_centre_loss(
    distances: torch.Tensor, labels: torch.Tensor, primary: torch.Tensor, dim: int
) -> torch.Tensor:
    """Return the mean of C(l) min_k ||e - a_yk|| / sqrt(D), not squared, as the code of ARBEx does.

    Args:
        distances: (B, N, K). labels: (B,). primary: (B, N) l. dim: D.
    """
    return (confidence(primary) * nearest_own(distances, labels)).mean() / math.sqrt(dim)


def nearest_own(distances: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return (B,), the distance from each face to the nearest anchor of its own class."""
    return distances[torch.arange(len(labels), device=labels.device), labels].min(dim=-1).values


def trusted(output: HeadOutput, trust: float) -> torch.Tensor:
    """Return ARBEx's training distribution (B, N): (1 - trust) l + trust (c_l l + (1 - c_l) t)."""
    if output.correction is None:
        return output.primary
    inner = mix(output.primary, output.correction, confidence(output.primary))
    return (1.0 - trust) * output.primary + trust * inner


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Whether the warm-up is over, and ARBEx's trust in the correction, the share of the run that is over."""

    balanced: bool
    trust: float = 1.0


def loss_terms(
    options: GrefelOptions,
    output: HeadOutput,
    anchors: torch.Tensor | None,
    batch: Batch,
    weights: torch.Tensor | None,
    stage: Stage,
) -> Terms:
    """Return the weighted sum and its terms (Eq. 23); those that are off, or not begun, are 0.

    Args:
        anchors: (N, K, D), None for a head without.
        weights: (N,) of the classes, all 1 when left out.
    """
    target = smooth(batch.targets, options.smoothing)
    arbex = options.variant == "arbex"
    judged = output.probabilities if stage.balanced else output.primary
    if stage.balanced and arbex:
        judged = trusted(output, stage.trust)
    classification = classification_loss(judged, target, weights)
    zero = torch.zeros_like(classification)
    terms = dict.fromkeys(("classification", "anchor", "centre", "primary", "similarity"), zero)
    terms["classification"] = classification
    if stage.balanced:
        terms["primary"] = classification_loss(output.primary, target, weights)
    if stage.balanced and anchors is not None and output.by_anchor is not None:
        terms["anchor"], terms["centre"] = anchor_terms(options, output, anchors, batch.labels, stage.trust)
        terms["similarity"] = classification_loss(output.by_anchor, target, weights)
    total = sum((getattr(options, name) * value for name, value in terms.items()), zero)
    return {"total": total, **terms}


def anchor_terms(
    options: GrefelOptions, output: HeadOutput, anchors: torch.Tensor, labels: torch.Tensor, trust: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the anchor and the centre term in the form that the variant asks for."""
    assert output.distances is not None
    dim = anchors.shape[-1]
    if options.variant == "arbex":
        centre = arbex_centre_loss(output.distances, labels, output.primary, dim)
        return trust * arbex_anchor_loss(anchors), trust * centre
    margin = options.margin if options.variant == "margin" else math.inf
    return anchor_loss(anchors, margin), centre_loss(output.distances, labels, dim)


class Grefel(Method):
    """GReFEL (Wasi et al., 2024), its ablations, and the variants of its printed formulas and of ARBEx."""

    name = "grefel"
    heads = ("balanced", "linear")
    weights: torch.Tensor

    def __init__(self, options: GrefelOptions, network: ExpressionNetwork, faces: TrainingSet) -> None:
        super().__init__(options, network, faces)
        self.options = options
        self.labels = faces.labels
        balance = 1.0 if options.variant == "arbex" else options.balance
        self.register_buffer("weights", class_weights(faces.counts(), balance), persistent=False)
        head = network.head
        if options.training_delta is not None:
            if not isinstance(head, ReliabilityBalancing) or head.anchor_correction is None:
                raise TrainingError(
                    "expected a head with anchors where method.training_delta is set, got "
                    f"{network.spec.head} with balancing {network.spec.balancing}; leave training_delta out"
                )
            head.anchor_correction.delta = options.training_delta

    def begin_epoch(
        self, network: ExpressionNetwork, rows: torch.Tensor, embed: Embed, moment: Moment
    ) -> bool:
        """Place the anchors on the embeddings of training faces, once, when the warm-up is over."""
        anchors = own_anchors(network)
        began = moment.epoch == self.options.warmup_epochs
        if anchors is None or not began or (moment.epoch == 0 and moment.pretrained):
            return False
        chosen = rows[:ANCHOR_FACES]
        placed = place_anchors(embed(chosen), self.labels[chosen], anchors.detach().cpu(), moment.seed)
        anchors.data.copy_(placed)
        return True

    def forward(self, network: ExpressionNetwork, batch: Batch, moment: Moment) -> Terms:
        """Return classification, anchor, centre, primary and similarity."""
        output = self.see(network, batch.faces)
        balanced = moment.epoch >= self.options.warmup_epochs and network.spec.head == "balanced"
        stage = Stage(balanced=balanced, trust=moment.step / moment.steps)
        terms = loss_terms(self.options, output, own_anchors(network), batch, self.weights, stage)
        return {
            **terms,
            "correction_weight": output.correction_weight.mean(),
            "anchor_weight": output.anchor_weight.mean(),
        }

    def warnings(self, figures: Evaluation, network: ExpressionNetwork, epoch: int) -> list[str]:
        """Name the parts of the balancing head that have no say."""
        if network.spec.head != "balanced" or epoch < self.options.warmup_epochs:
            return []
        return figures.dead_branches(network.spec.balancing)


def own_anchors(network: ExpressionNetwork) -> torch.Tensor | None:
    """Return the network's anchors (N, K, D); None for a head without."""
    head = network.head
    if not isinstance(head, ReliabilityBalancing) or head.anchor_correction is None:
        return None
    return head.anchor_correction.anchors


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
