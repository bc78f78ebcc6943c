"""Class attention maps of a few faces per class, for networks that have them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edge_fer.parity import metrics
from training.evaluate.answers import Floats
from training.evaluate.results import Result
from training.methods.attention_maps import class_attention_maps, feature_maps, has_attention_maps

EACH = 2
"""Right ones of a class, and as many wrong ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """Where a network finds the label that it gives to a face.

    Attributes:
        row: which of the faces.
        predicted: the label that the map is of.
        map: (S, S) float32, of the face's size; its mean is the label's logit but for the bias.
    """

    row: int
    predicted: int
    map: Floats


def attend(result: Result) -> dict[int, list[Attention]] | None:
    """Return by true label the maps of the surest faces, right ones first; None without such maps."""
    network = result.network
    if not has_attention_maps(network):
        return None
    chosen = {label: choose(result, label) for label in range(len(result.faces.labels))}
    top = metrics.top1(result.answers.probabilities)
    return {
        label: [Attention(row, int(top[row]), attention_map(result, row, int(top[row]))) for row in rows]
        for label, rows in chosen.items()
        if rows
    }


def choose(result: Result, label: int) -> list[int]:
    """Return the rows of a class that the network is surest of: at most two right ones, two wrong ones."""
    probabilities, labels = result.answers.probabilities, result.faces.numbers
    right = metrics.correct(probabilities, labels)
    confidence = probabilities.max(axis=1)
    rows: list[int] = []
    for wanted in (True, False):
        found: NDArray[np.int64] = np.flatnonzero((labels == label) & (right == wanted))
        rows += found[np.argsort(-confidence[found], kind="stable")][:EACH].tolist()
    return rows


def attention_map(result: Result, row: int, label: int) -> Floats:
    """Return a face's map of one label, brought to the face's size (S, S) by bilinear interpolation."""
    network, crop = result.network, result.faces.tensors.crops[row]
    device = next(network.parameters()).device
    face = (crop.permute(2, 0, 1).float() / 255.0)[None].to(device)
    with torch.inference_mode():
        maps = class_attention_maps(network, feature_maps(network, face))[:, [label]]
        large = torch.nn.functional.interpolate(
            maps, size=crop.shape[:2], mode="bilinear", align_corners=False
        )
    return np.asarray(large[0, 0].cpu().numpy())
