"""Figures of a network on labelled faces, all from `edge_fer.parity.metrics`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from edge_fer.errors import TrainingError
from edge_fer.parity import metrics
from training.data.faces import FaceTensors
from training.models import ExpressionNetwork, standardise

DEAD_BRANCH = 0.02


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Accuracies, recalls and F1 are fractions 0..1; weights are means over the faces.

    `changed` is the share of faces whose label balancing changed; `anchors_used` the share of all anchors
    that are the nearest one to at least one face; `temperature` the one that would calibrate these faces.
    """

    accuracy: float
    primary_accuracy: float
    mean_recall: float
    macro_f1: float
    ece: float
    nll: float
    changed: float
    correction_weight: float
    anchor_weight: float
    anchors_used: float
    temperature: float

    def dead_branches(self, balancing: str) -> list[str]:
        """Name the parts of a head with this balancing whose mean weight leaves them without a say."""
        weights = {}
        if balancing != "none":
            weights["the correction"] = self.correction_weight
            weights["the primary distribution"] = 1.0 - self.correction_weight
        if balancing == "both":
            weights["the anchors"] = self.anchor_weight
            weights["the attentive correction"] = 1.0 - self.anchor_weight
        return [f"{name} has a mean weight of {w:.3f}" for name, w in weights.items() if w < DEAD_BRANCH]


def normalise(crops: torch.Tensor, network: ExpressionNetwork) -> torch.Tensor:
    """Turn uint8 crops (B, S, S, 3) into the network's input (B, 3, S, S) float32."""
    return standardise(crops.permute(0, 3, 1, 2).float() / 255.0, network)


@torch.inference_mode()
def embed(
    network: ExpressionNetwork, crops: torch.Tensor, device: torch.device, batch_size: int = 256
) -> torch.Tensor:
    """Return the embeddings (N, D) float32 of uint8 crops, in eval mode."""
    network.eval()
    parts = [
        network.forward_features(normalise(part.to(device), network)) for part in crops.split(batch_size)
    ]
    return torch.cat(parts).float().cpu()


@torch.inference_mode()
def evaluate(
    network: ExpressionNetwork, faces: FaceTensors, device: torch.device, batch_size: int = 256
) -> Evaluation:
    """Run the network in eval mode over every face and compute the figures.

    Raises:
        TrainingError: it answers with values that are no numbers.
    """
    network.eval()
    probabilities, primary, correction, anchor, nearest = [], [], [], [], []
    for part in faces.crops.split(batch_size):
        output = network(normalise(part.to(device), network))
        probabilities.append(output.probabilities.cpu().numpy())
        primary.append(output.primary.cpu().numpy())
        correction.append(output.correction_weight.cpu().numpy())
        anchor.append(output.anchor_weight.cpu().numpy())
        if output.distances is not None:
            nearest.append(output.distances.flatten(1).argmin(dim=1).cpu().numpy())
            total = output.distances[0].numel()
    p, q, labels = np.concatenate(probabilities), np.concatenate(primary), faces.labels.numpy()
    broken = int((~np.isfinite(p).all(axis=1)).sum())
    if broken:
        raise TrainingError(
            f"expected probabilities, got values that are no numbers for {broken} of {len(p)} faces; the "
            "weights are broken: take an earlier checkpoint, or train with a lower optimiser.learning_rate"
        )
    return Evaluation(
        accuracy=metrics.accuracy(p, labels),
        primary_accuracy=metrics.accuracy(q, labels),
        mean_recall=metrics.mean_recall(p, labels),
        macro_f1=metrics.macro_f1(p, labels),
        ece=metrics.ece(p, labels),
        nll=metrics.nll(p, labels),
        changed=float(metrics.flips(q, p).mean()),
        correction_weight=float(np.concatenate(correction).mean()),
        anchor_weight=float(np.concatenate(anchor).mean()),
        anchors_used=len(np.unique(np.concatenate(nearest))) / total if nearest else 0.0,
        temperature=metrics.temperature(p, labels),
    )
