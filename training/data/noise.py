"""Symmetric label noise: a share of the faces gets a wrong label, any other being as likely."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from edge_fer.errors import TrainingError
from training.data.chance import generator
from training.data.faces import FaceTensors


@dataclass(frozen=True, slots=True)
class NoisyFaces:
    """Faces of which some have a wrong label: `rows` (R,) int64 ascending says which."""

    faces: FaceTensors
    rows: torch.Tensor


def add_noise(faces: FaceTensors, rate: float, classes: int, seed: int) -> NoisyFaces:
    """Return the faces with round(rate N) wrong labels, and which they are.

    The wrong label is any other of `classes`; the votes of such a face become one vote, for the wrong label.

    Args:
        faces: are not changed.
        rate: 0..1.
        classes: of the network.
        seed: of the choice of faces and labels.

    Raises:
        TrainingError: a rate outside 0..1, or a single class.
    """
    if not 0 <= rate <= 1:
        raise TrainingError(f"expected a rate of label noise of 0 to 1, got {rate:g}")
    if classes < 2:
        raise TrainingError(f"expected at least two classes for wrong labels, got {classes}")
    chance = generator(seed, "noise")
    rows = torch.randperm(len(faces), generator=chance)[: round(rate * len(faces))].sort().values
    shift = torch.randint(1, classes, (len(rows),), generator=chance)
    labels = faces.labels.clone()
    labels[rows] = (labels[rows] + shift) % classes
    votes = None if faces.votes is None else faces.votes.clone()
    if votes is not None:
        votes[rows] = torch.nn.functional.one_hot(labels[rows], votes.shape[1]).to(votes.dtype)
    return NoisyFaces(replace(faces, labels=labels, votes=votes), rows)
