"""Cross-entropy: plain, class-balanced by the effective number of faces, or with the centre loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import log_softmax

from training.methods.grefel import smooth
from training.methods.method import Batch, Method, Moment, Rule, Terms, TrainingSet
from training.methods.processes import from_all_processes
from training.models import ExpressionNetwork

CLASS_WEIGHTS = ("none", "effective")
BETA = 0.9999  # of the effective number, as published for the long-tailed sets


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEntropyOptions:
    """What is added to the plain loss; as it stands nothing.

    `class_weights` is none or effective (`effective_weights`). `smoothing` spreads over all classes. `centre`
    is the weight lambda of the centre loss, `centre_rate` the alpha with which its centres follow the faces;
    Wen et al. (2016) publish 0.003 and 0.5.
    """

    class_weights: str = "none"
    smoothing: float = 0.0
    centre: float = 0.0
    centre_rate: float = 0.5


def rules(options: CrossEntropyOptions) -> tuple[Rule, ...]:
    """Return what has to hold of the options."""
    weights, rate = options.class_weights, options.centre_rate
    return (
        ("class_weights", weights, " or ".join(CLASS_WEIGHTS), weights in CLASS_WEIGHTS),
        ("smoothing", options.smoothing, "from 0 to below 1", 0.0 <= options.smoothing < 1.0),
        ("centre", options.centre, "of 0 or more", 0.0 <= options.centre < math.inf),
        ("centre_rate", rate, "above 0 and up to 1", 0.0 < rate <= 1.0),
    )


def effective_weights(counts: torch.Tensor, beta: float = BETA) -> torch.Tensor:
    """Return (N,) weights proportional to (1 - beta) / (1 - beta^n_c) that sum to N.

    The inverse of the effective number of samples (Cui et al., CVPR 2019, Eq. 2 and 3). An absent class is
    weighted like one of a single face.

    Args:
        counts: (N,), the faces n_c of each class.
    """
    # expm1 keeps the digits that 1 - beta^n loses for small n.
    weights = -1.0 / torch.expm1(counts.clamp_min(1.0).double() * math.log(beta))
    return (weights * len(counts) / weights.sum()).to(counts.dtype)


def cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the mean over the batch of -sum_c w_c t_c log softmax(z)_c.

    Args:
        logits: (B, N) z. targets: (B, N) distributions t.
        weights: (N,) w of the classes, all 1 when left out.
    """
    terms = targets * log_softmax(logits, dim=-1)
    return -(terms if weights is None else terms * weights).sum(dim=-1).mean()


def centre_loss(embeddings: torch.Tensor, centres: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return half the mean over the batch of ||e_n - c_{y_n}||^2 (Wen et al., ECCV 2016, Eq. 2 as a mean).

    Args:
        embeddings: (B, D). centres: (N, D). labels: (B,).
    """
    return 0.5 * (embeddings - centres[labels]).square().sum(dim=-1).mean()


def moved_centres(
    centres: torch.Tensor, embeddings: torch.Tensor, labels: torch.Tensor, rate: float
) -> torch.Tensor:
    """Return c_j - alpha sum_{y_n = j} (c_j - e_n) / (1 + n_j) for every class j (Wen et al., Eq. 4).

    Args:
        centres: (N, D). embeddings: (B, D). labels: (B,). rate: alpha.
    """
    pull = torch.zeros_like(centres).index_add_(0, labels, embeddings - centres[labels])
    counts = torch.bincount(labels, minlength=len(centres)).to(centres.dtype)
    return centres + rate * pull / (1.0 + counts)[:, None]


class CrossEntropy(Method):
    """Cross-entropy between the targets and the network's distribution, and what the options add.

    The centres start at zero and are moved after every step with the embeddings of its last forward pass,
    those of all processes; no optimiser trains them.
    """

    name = "cross_entropy"
    weights: torch.Tensor
    centres: torch.Tensor

    def __init__(self, options: CrossEntropyOptions, network: ExpressionNetwork, faces: TrainingSet) -> None:
        super().__init__(options, network, faces)
        self.options = options
        counts = faces.counts()
        weights = torch.ones_like(counts) if options.class_weights == "none" else effective_weights(counts)
        self.register_buffer("weights", weights, persistent=False)
        dim = network.encoder.embedding_dim
        assert isinstance(dim, int)
        self.register_buffer("centres", torch.zeros(faces.classes, dim))
        self.seen: tuple[torch.Tensor, torch.Tensor] | None = None  # embeddings (B, D), labels (B,)

    def forward(self, network: ExpressionNetwork, batch: Batch, moment: Moment) -> Terms:
        """Return classification and centre."""
        output = self.see(network, batch.faces)
        embeddings = output.embedding.float()
        targets = smooth(batch.targets, self.options.smoothing)
        classification = cross_entropy(output.logits.float(), targets, self.weights)
        if self.options.centre == 0.0:
            return {"total": classification, "classification": classification}
        self.seen = embeddings.detach(), batch.labels
        centre = centre_loss(embeddings, self.centres, batch.labels)
        total = classification + self.options.centre * centre
        return {"total": total, "classification": classification, "centre": centre}

    def needs_whole_batches(self) -> bool:
        """Return whether there are centres."""
        return self.options.centre > 0.0

    def after_step(self, network: ExpressionNetwork, batch: Batch) -> None:
        """Move the centres towards the step's embeddings."""
        if self.seen is not None:
            embeddings, labels = map(from_all_processes, self.seen)
            self.centres.copy_(moved_centres(self.centres, embeddings, labels, self.options.centre_rate))
            self.seen = None
