"""SCN: importance scales a face's logits, labels the network doubts are changed (Wang et al., CVPR 2020).

Formulas and constants: systems §5. The importance is the scaled head's own, so inference has it too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy, one_hot

from training.methods.method import Batch, Method, Moment, Rule, Terms, TrainingSet
from training.methods.needs import need_head
from training.methods.processes import from_all_processes
from training.models import ExpressionNetwork
from training.models.heads import ScaledHead

RELABEL = ("low", "all", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScnOptions:
    """The released code's constants, and the paper's choice of who is relabelled.

    `high_share` is beta, the share of a batch that makes the group of high importance, `margin` m1, by which
    its mean importance is to exceed the others', and `rank` the weight of that term. From epoch
    `relabel_epoch` on (counted from 0), a face gets the network's label where that is more probable than its
    own by over `relabel_margin`, m2. `relabel` says of whom: low (the group of low importance), all (whole
    batches, as the code does), or none.
    """

    classification: float = 1.0
    rank: float = 1.0
    high_share: float = 0.7
    margin: float = 0.15
    relabel: str = "low"
    relabel_epoch: int = 10
    relabel_margin: float = 0.2


def rules(options: ScnOptions) -> tuple[Rule, ...]:
    """Return what has to hold of the options."""
    margin, epoch = options.relabel_margin, options.relabel_epoch
    return (
        ("classification", options.classification, "above 0", 0.0 < options.classification < math.inf),
        ("rank", options.rank, "of 0 or more", 0.0 <= options.rank < math.inf),
        ("high_share", options.high_share, "above 0 and below 1", 0.0 < options.high_share < 1.0),
        ("margin", options.margin, "of 0 to 1", 0.0 <= options.margin <= 1.0),
        ("relabel", options.relabel, " or ".join(RELABEL), options.relabel in RELABEL),
        ("relabel_epoch", epoch, "of 0 or more", epoch >= 0),
        ("relabel_margin", margin, "of 0 to 1", 0.0 <= margin <= 1.0),
    )


def high_group(importance: torch.Tensor, share: float) -> torch.Tensor:
    """Return (B,) bool, who of a batch is among the int(share B) most important; neither group is empty.

    Args:
        importance: (B,) alpha of two faces or more. share: beta.
    """
    count = max(int(len(importance) * share), 1)  # below B: the share is below 1
    high = torch.zeros_like(importance, dtype=torch.bool)
    high[importance.topk(count).indices] = True
    return high


def rank_loss(importance: torch.Tensor, high: torch.Tensor, margin: float) -> torch.Tensor:
    """Return max(0, m1 - (mean of the high group's alpha - mean of the others'))."""
    return (margin - (importance[high].mean() - importance[~high].mean())).clamp_min(0.0)


def better_labels(probabilities: torch.Tensor, labels: torch.Tensor, margin: float) -> torch.Tensor:
    """Return (B,) int64: the likeliest class where it exceeds the label's by over m2, else the label.

    Args:
        probabilities: (B, N). labels: (B,).
    """
    own = probabilities.gather(1, labels[:, None]).squeeze(1)
    best, likeliest = probabilities.max(dim=1)
    return torch.where(best - own > margin, likeliest, labels)


class Scn(Method):
    """Cross-entropy of the scaled logits, rank regularisation of the importance, and relabelling.

    Attributes:
        labels: (M,) int64, the training faces' labels as they are now.
        given: (M,) int64, those they came with.
    """

    name = "scn"
    heads = ("scaled",)
    labels: torch.Tensor
    given: torch.Tensor

    def __init__(self, options: ScnOptions, network: ExpressionNetwork, faces: TrainingSet) -> None:
        super().__init__(options, network, faces)
        need_head(network, Scn)
        self.options = options
        self.register_buffer("labels", faces.labels.clone())
        self.register_buffer("given", faces.labels.clone(), persistent=False)

    @property
    def relabelled(self) -> torch.Tensor:
        """How many training faces have another label than they came with, as a scalar."""
        return (self.labels != self.given).sum()

    def targets(self, batch: Batch) -> torch.Tensor:
        """Return (B, N): one-hot where a face was relabelled, else the batch's own target."""
        labels = self.labels[batch.rows]
        changed = (labels != self.given[batch.rows])[:, None]
        return torch.where(changed, one_hot(labels, batch.targets.shape[1]).float(), batch.targets.float())

    def forward(self, network: ExpressionNetwork, batch: Batch, moment: Moment) -> Terms:
        """Return classification, rank, and, in place of a term, how many labels differ from those given."""
        options = self.options
        assert isinstance(network.head, ScaledHead)
        output = self.see(network, batch.faces)
        logits = output.logits.float()
        with torch.autocast(logits.device.type, enabled=False):
            importance = network.head.importance(output.embedding.float())
        high = high_group(importance.detach(), options.high_share)
        classification = cross_entropy(logits, self.targets(batch))
        rank = rank_loss(importance, high, options.margin)
        if options.relabel != "none" and moment.epoch >= options.relabel_epoch:
            self.relabel(logits, torch.ones_like(high) if options.relabel == "all" else ~high, batch.rows)
        total = options.classification * classification + options.rank * rank
        relabelled = self.relabelled.to(total)
        return {"total": total, "classification": classification, "rank": rank, "relabelled": relabelled}

    @torch.no_grad()
    def relabel(self, logits: torch.Tensor, judged: torch.Tensor, rows: torch.Tensor) -> None:
        """Change the labels of the judged faces of a batch that the network's own, scaled answer contradicts.

        Every process learns of the changes of all others: the labels are to stay one and the same.

        Args:
            logits: (B, N). judged: (B,) bool. rows: (B,), which of the training faces these are.
        """
        old = self.labels[rows]
        new = better_labels(logits.softmax(dim=1), old, self.options.relabel_margin)
        self.labels[from_all_processes(rows)] = from_all_processes(torch.where(judged, new, old))
