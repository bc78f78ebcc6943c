"""DAN: classes apart around centres, four attention heads that look at different things (Wen et al., 2023).

Formulas and constants: systems §6. The affinity is of the maps' means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from training.methods.attention_maps import feature_maps
from training.methods.method import Batch, Method, Moment, Rule, Terms, TrainingSet
from training.methods.needs import need_head
from training.models import ExpressionNetwork, MapEncoder
from training.models.heads import DanHead

TINY = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class DanOptions:
    """The weights of the affinity and the partition term, both as published."""

    affinity: float = 1.0
    partition: float = 1.0


def rules(options: DanOptions) -> tuple[Rule, ...]:
    """Return what has to hold of the options."""
    return (
        ("affinity", options.affinity, "of 0 or more", 0.0 <= options.affinity < math.inf),
        ("partition", options.partition, "of 0 or more", 0.0 <= options.partition < math.inf),
    )


def affinity_loss(features: torch.Tensor, centres: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean of ||f_n - c_{y_n}||^2 over the sum of the centres' variances across the classes.

    Args:
        features: (B, C). centres: (N, C). labels: (B,).
    """
    distances = (features - centres[labels]).square().sum(dim=1)
    return distances.mean() / centres.var(dim=0).sum().clamp_min(TINY)


def partition_loss(attended: torch.Tensor) -> torch.Tensor:
    """Return log(1 + K / v), v being the mean variance across the K heads.

    Args:
        attended: (B, K, C), what the heads say.
    """
    return torch.log1p(attended.shape[1] / attended.var(dim=1).mean().clamp_min(TINY))


class Dan(Method):
    """Cross-entropy of the logits, affinity of the maps' means with trained class centres, and partition."""

    name = "dan"
    heads = ("dan",)

    def __init__(self, options: DanOptions, network: ExpressionNetwork, faces: TrainingSet) -> None:
        super().__init__(options, network, faces)
        need_head(network, Dan)
        assert isinstance(network.encoder, MapEncoder)
        self.options = options
        self.centres = nn.Parameter(torch.randn(faces.classes, network.encoder.map_channels))

    def forward(self, network: ExpressionNetwork, batch: Batch, moment: Moment) -> Terms:
        """Return classification, affinity and partition."""
        assert isinstance(network.head, DanHead)
        maps = feature_maps(network, batch.faces)
        with torch.autocast(maps.device.type, enabled=False):
            attended = network.head.attend(maps.float())
            logits = network.head.classify(attended).logits
            features = maps.float().mean(dim=(2, 3))
        classification = cross_entropy(logits, batch.targets.float())
        affinity = affinity_loss(features, self.centres, batch.labels)
        partition = partition_loss(attended)
        total = classification + self.options.affinity * affinity + self.options.partition * partition
        return {
            "total": total,
            "classification": classification,
            "affinity": affinity,
            "partition": partition,
        }
