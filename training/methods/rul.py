"""RUL: a face's uncertainty, learnt from mixtures with another face (Zhang et al., NeurIPS 2021; systems §6).

Both are mixed in proportion to their uncertainties, and the mixture is to be both: who is easy to tell may
weigh little. What infers is the linear layer on mu alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from training.methods.attention_maps import feature_maps, judge
from training.methods.method import Batch, Method, Moment, Rule, Terms, TrainingSet
from training.methods.needs import need_head
from training.models import ExpressionNetwork, MapEncoder
from training.models.heads import MapVector, RulHead


@dataclass(frozen=True, slots=True, kw_only=True)
class RulOptions:
    """None: the published constants are those of the rul head (64 dimensions, dropout 0.4)."""


def rules(options: RulOptions) -> tuple[Rule, ...]:
    """Return what has to hold of the options."""
    return ()


def uncertainty(log_variances: torch.Tensor) -> torch.Tensor:
    """Return u (B,), the mean over the dimensions of exp(log-variance) (B, D)."""
    return log_variances.exp().mean(dim=1)


def mixed_features(means: torch.Tensor, uncertainties: torch.Tensor, partner: torch.Tensor) -> torch.Tensor:
    """Return (u_a mu_a + u_b mu_b) / (u_a + u_b), b being the partner of a.

    Args:
        means: (B, D) mu. uncertainties: (B,) u. partner: (B,) int64.
    """
    own, other = uncertainties[:, None], uncertainties[partner][:, None]
    return (own * means + other * means[partner]) / (own + other)


class Rul(Method):
    """Cross-entropy of pairwise mixed features, half with each face's target.

    The branch that says the log-variance is the method's own, of the same build as the head's for mu.
    """

    name = "rul"
    heads = ("rul",)

    def __init__(self, options: RulOptions, network: ExpressionNetwork, faces: TrainingSet) -> None:
        super().__init__(options, network, faces)
        need_head(network, Rul)
        assert isinstance(network.encoder, MapEncoder)
        self.log_variance = MapVector(network.encoder.map_channels, network.encoder.map_size)

    def forward(self, network: ExpressionNetwork, batch: Batch, moment: Moment) -> Terms:
        """Return classification, and, in place of a term, the batch's mean uncertainty."""
        assert isinstance(network.head, RulHead)
        maps = feature_maps(network, batch.faces)
        means = judge(network, maps).embedding.float()
        with torch.autocast(maps.device.type, enabled=False):
            uncertainties = uncertainty(self.log_variance(maps.float()))
            partner = torch.randperm(len(means)).to(means.device)
            logits = network.head.linear(mixed_features(means, uncertainties, partner))
        targets = batch.targets.float()
        total = cross_entropy(logits, 0.5 * (targets + targets[partner]))
        return {"total": total, "classification": total, "uncertainty": uncertainties.detach().mean()}
