"""LDLVA (Le et al., WACV 2023): label distributions from neighbours in valence and arousal (systems §2).

A face's target mixes its label with what the network says of its neighbours, by an uncertainty learnt for
every training face. The forms are those of the released code; where the paper differs there is a switch.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import one_hot

from edge_fer.errors import TrainingError
from training.methods.method import Batch, Method, Moment, Neighbours, Rule, Terms, TrainingSet
from training.methods.modes import eval_mode
from training.methods.processes import from_all_processes
from training.models import ExpressionNetwork

SIMILARITIES = ("l1", "squared-l2")
SEPARATIONS = ("dim", "root")
CLASS_WEIGHTS = ("none", "balanced")
FLOOR = -1.3  # of the calibration before its sigmoid: no neighbour counts less than 0.214
HIDDEN = (512, 256)
EPSILON = 1e-10


@dataclass(frozen=True, slots=True, kw_only=True)
class LdlvaOptions:
    """The constants published for RAF-DB; AffectNet's differ where said.

    `neighbours` is K. `similarity` is the form of the neighbours' local similarity, which comes with the
    batch: l1 is the code's, squared-l2 the paper's. `uncertainty_start` is the uncertainty of every face
    before its sigmoid (AffectNet 0.8), `uncertainty_rate` and `uncertainty_momentum` are its own SGD's
    (momentum 0.9 on AffectNet). `target_gradient` lets the loss shape the targets; without, uncertainty and
    calibration never learn. `neighbour_training` sees the neighbours in training mode, where they move the
    BatchNorms' running statistics; without, in eval mode. `discriminative` is gamma. `centre_rate` is the
    rate of both updates of the centres, `separation` the factor of the second, whose exponent divides by D
    (dim, the code) or its root (root, the paper). `class_weights` is none or balanced (AffectNet).
    """

    neighbours: int = 8
    similarity: str = "l1"
    uncertainty_start: float = 0.5
    uncertainty_rate: float = 10.0
    uncertainty_momentum: float = 0.0
    target_gradient: bool = True
    neighbour_training: bool = True
    discriminative: float = 0.01
    centre_rate: float = 0.5
    separation: float = 0.1
    separation_scale: str = "dim"
    class_weights: str = "none"


def rules(options: LdlvaOptions) -> tuple[Rule, ...]:
    """Return what has to hold of the options."""
    o = options
    chosen = {
        "similarity": (o.similarity, SIMILARITIES),
        "separation_scale": (o.separation_scale, SEPARATIONS),
        "class_weights": (o.class_weights, CLASS_WEIGHTS),
    }
    least = {
        "uncertainty_rate": o.uncertainty_rate,
        "discriminative": o.discriminative,
        "separation": o.separation,
    }
    momentum, rate = o.uncertainty_momentum, o.centre_rate
    return (
        ("neighbours", o.neighbours, "of 1 or more", o.neighbours >= 1),
        ("uncertainty_start", o.uncertainty_start, "finite", math.isfinite(o.uncertainty_start)),
        ("uncertainty_momentum", momentum, "from 0 to below 1", 0.0 <= momentum < 1.0),
        ("centre_rate", rate, "above 0 and up to 1", 0.0 < rate <= 1.0),
        *((name, value, "of 0 or more", 0.0 <= value < math.inf) for name, value in least.items()),
        *((name, value, " or ".join(names), value in names) for name, (value, names) in chosen.items()),
    )


def calibration(scores: torch.Tensor) -> torch.Tensor:
    """Return r = sigmoid(max(g, -1.3)) of scores g of any shape."""
    return scores.clamp_min(FLOOR).sigmoid()


def neighbour_distribution(
    similarity: torch.Tensor, calibrated: torch.Tensor, probabilities: torch.Tensor
) -> torch.Tensor:
    """Return dbar_i = sum_k s_ik r_ik p(x_k) / sum_k s_ik r_ik, (B, N).

    Args:
        similarity: (B, K) s, above 0 for at least one neighbour. calibrated: (B, K) r.
        probabilities: (B, K, N) p of the neighbours.
    """
    weights = similarity * calibrated
    weights = weights / weights.sum(dim=-1, keepdim=True)
    return (weights[..., None] * probabilities).sum(dim=1)


def target_distribution(labels: torch.Tensor, neighbours: torch.Tensor, trust: torch.Tensor) -> torch.Tensor:
    """Return d_i = lam_i onehot(y_i) + (1 - lam_i) dbar_i.

    Args:
        labels: (B,) y. neighbours: (B, N) dbar. trust: (B,) lam in 0..1.
    """
    given = one_hot(labels, neighbours.shape[-1]).to(neighbours.dtype)
    return trust[:, None] * given + (1.0 - trust)[:, None] * neighbours


def classification_loss(
    probabilities: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the mean over the batch of -w_i sum_c d_ic log(p_ic + 1e-10).

    Args:
        probabilities: (B, N) p. target: (B, N) d.
        weights: (B,) w of the faces, that of their labels' class; all 1 when left out.
    """
    terms = -(target * (probabilities + EPSILON).log()).sum(dim=-1)
    return (terms if weights is None else terms * weights).mean()


def discriminative_loss(
    features: torch.Tensor, centres: torch.Tensor, labels: torch.Tensor, trust: torch.Tensor
) -> torch.Tensor:
    """Return (0.5 / B') sum_j lam_j ||f_j - mu_{y_j}||^2.

    Args:
        features: (B', D) f of faces and neighbours. centres: (N, D) mu. labels: (B',). trust: (B',) lam.
    """
    return 0.5 * (trust * (features - centres[labels]).square().sum(dim=-1)).mean()


def attracted(
    centres: torch.Tensor, features: torch.Tensor, labels: torch.Tensor, trust: torch.Tensor, rate: float
) -> torch.Tensor:
    """Return mu_c + rate sum_{y_j = c} lam_j (f_j - mu_c) / (n_c + 1) / B', step (a) of the centres.

    Args:
        centres: (N, D) mu. features: (B', D) f. labels: (B',). trust: (B',) lam.
    """
    pull = trust[:, None] * (features - centres[labels])
    summed = torch.zeros_like(centres).index_add_(0, labels, pull)
    counts = torch.bincount(labels, minlength=len(centres)).to(centres.dtype)
    return centres + rate * summed / (counts + 1.0)[:, None] / len(labels)


def separation_loss(centres: torch.Tensor, scale: str = "dim") -> torch.Tensor:
    """Return sum_{i<j} exp(-||mu_i - mu_j||^2 / D), or with the root of D where `scale` is root.

    Args:
        centres: (N, D) mu.
    """
    dim = centres.shape[-1]
    first, second = torch.triu_indices(len(centres), len(centres), offset=1, device=centres.device)
    squared = (centres[first] - centres[second]).square().sum(dim=-1)
    return (-squared / (dim if scale == "dim" else math.sqrt(dim))).exp().sum()


@torch.enable_grad()
def separated(centres: torch.Tensor, step: float, scale: str = "dim") -> torch.Tensor:
    """Return the centres (N, D) after one step of gradient descent on `separation_loss`, step (b).

    Equal centres have no gradient: step (a) has to come first.
    """
    moved = centres.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(separation_loss(moved, scale), moved)
    return centres - step * gradient


def balanced_weights(counts: torch.Tensor) -> torch.Tensor:
    """Return (N,) weights M / (N n_c) of classes with n_c of the M faces; an absent class counts as one.

    Args:
        counts: (N,) n.
    """
    return counts.sum() / (len(counts) * counts.clamp_min(1.0))


class Calibration(nn.Module):
    """g: how much a neighbour's answer can be believed, from both features, as a score per pair."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width_in = 2 * dim
        for width in HIDDEN:
            layers += [nn.Linear(width_in, width), nn.BatchNorm1d(width), nn.ReLU()]
            width_in = width
        self.layers = nn.Sequential(*layers, nn.Linear(width_in, 1))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, features: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
        """Map features (B, D) and their neighbours' (B, K, D) to scores (B, K)."""
        batch, count, dim = neighbours.shape
        pairs = torch.cat([features[:, None].expand(-1, count, -1), neighbours], dim=-1)
        scores: torch.Tensor = self.layers(pairs.reshape(batch * count, 2 * dim))
        return scores.reshape(batch, count)


class Ldlva(Method):
    """Label distributions of neighbours, uncertainty per training face, discriminative loss.

    The labels are taken as one-hot, as published, also where the data has votes. Features f are the
    embeddings. Gradients reach the network through its answer and through the calibration's features of the
    faces themselves; nothing of a neighbour carries one.

    Of several processes each sees the whole gradient of the uncertainties and the features of all, and so
    their copies of uncertainties and centres stay alike.
    """

    name = "ldlva"
    labels_alone = True
    class_weights: torch.Tensor
    centres: torch.Tensor
    velocity: torch.Tensor

    def __init__(self, options: LdlvaOptions, network: ExpressionNetwork, faces: TrainingSet) -> None:
        super().__init__(options, network, faces)
        self.options = options
        self.neighbours = options.neighbours
        self.squared_similarity = options.similarity == "squared-l2"
        dim, count = network.encoder.embedding_dim, len(faces.labels)
        assert isinstance(dim, int)
        self.calibration = Calibration(dim)
        self.uncertainty = nn.Parameter(torch.full((count,), options.uncertainty_start))
        self.register_buffer("velocity", torch.zeros(count))
        self.register_buffer("centres", torch.zeros(faces.classes, dim))
        counts = faces.counts()
        weights = torch.ones_like(counts) if options.class_weights == "none" else balanced_weights(counts)
        self.register_buffer("class_weights", weights, persistent=False)
        self.seen: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def own_parameters(self) -> list[nn.Parameter]:
        """Return the uncertainties, which have their own SGD."""
        return [self.uncertainty]

    def needs_whole_batches(self) -> bool:
        """Return that centres and uncertainties do."""
        return True

    def forward(self, network: ExpressionNetwork, batch: Batch, moment: Moment) -> Terms:
        """Return classification, discriminative, and the batch's mean uncertainty lam (nothing to minimise).

        Raises:
            TrainingError: the batch has no neighbours.
        """
        if batch.neighbours is None:
            raise TrainingError(
                "method ldlva: expected valence and arousal, got none; see data.valence_arousal"
            )
        # First with gradient: autocast would hand weights it cast without one to the pass that needs it.
        output = self.see(network, batch.faces)
        near_features, near_probabilities = self.see_neighbours(network, batch.neighbours)
        with torch.autocast(batch.faces.device.type, enabled=False):
            features = output.embedding.float()
            trust = self.uncertainty.sigmoid()[batch.rows]
            calibrated = calibration(self.calibration(features, near_features))
            around = neighbour_distribution(batch.neighbours.similarity, calibrated, near_probabilities)
            target = target_distribution(batch.labels, around, trust)
            target = target if self.options.target_gradient else target.detach()
            weights = self.class_weights[batch.labels]
            classification = classification_loss(output.primary.float(), target, weights)
            discriminative = self.discriminate(features, near_features, batch)
        total = classification + self.options.discriminative * discriminative
        return {
            "total": total,
            "classification": classification,
            "discriminative": discriminative,
            "trust": trust.detach().mean(),
        }

    @torch.no_grad()
    def see_neighbours(
        self, network: ExpressionNetwork, neighbours: Neighbours
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the neighbours' features (B, K, D) and distributions (B, K, N), float32, no gradient."""
        batch, count = neighbours.labels.shape
        with nullcontext() if self.options.neighbour_training else eval_mode(network):
            output = self.see(network, neighbours.faces.flatten(0, 1))
        features = output.embedding.float().reshape(batch, count, -1)
        return features, output.primary.float().reshape(batch, count, -1)

    def discriminate(self, features: torch.Tensor, near_features: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the discriminative loss over faces and neighbours; note them for the centres' updates."""
        assert batch.neighbours is not None
        every = torch.cat([features, near_features.flatten(0, 1)])
        labels = torch.cat([batch.labels, batch.neighbours.labels.flatten()])
        rows = torch.cat([batch.rows, batch.neighbours.rows.flatten()])
        trust = self.uncertainty.detach().sigmoid()[rows]
        self.seen = every.detach(), labels, trust
        return discriminative_loss(every, self.centres, labels, trust)

    @torch.no_grad()
    def after_step(self, network: ExpressionNetwork, batch: Batch) -> None:
        """Step the uncertainties, then move the centres: (a) to their faces, (b) away from each other."""
        self.step_uncertainty()
        if self.seen is None:
            return
        options = self.options
        features, labels, trust = map(from_all_processes, self.seen)
        centres = attracted(self.centres, features, labels, trust, options.centre_rate)
        step = options.centre_rate * options.separation
        self.centres.copy_(separated(centres, step, options.separation_scale))
        self.seen = None

    def step_uncertainty(self) -> None:
        """Step the uncertainties with a gradient by SGD; the others' momentum waits until they are seen."""
        gradient = self.uncertainty.grad
        if gradient is None:
            return
        seen = gradient != 0.0
        velocity = self.options.uncertainty_momentum * self.velocity + gradient
        self.velocity.copy_(torch.where(seen, velocity, self.velocity))
        self.uncertainty.sub_(torch.where(seen, self.options.uncertainty_rate * velocity, 0.0))
        self.uncertainty.grad = None
