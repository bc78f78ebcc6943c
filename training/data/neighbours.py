"""Neighbours of faces in valence and arousal, and stand-ins for sets without them (LDLVA, systems §2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from edge_fer.errors import TrainingError
from training.data.chance import generator
from training.models.checkpoint import read_safetensors

SCALE = 0.5  # delta of the similarity
# Where each emotion lies in the circumplex of Russell (1980): pleasant or not, calm or excited. Set by hand,
# for faces without annotations; no measurement of anybody's.
PROTOTYPES = {
    "neutral": (0.0, 0.0),
    "happiness": (0.7, 0.3),
    "surprise": (0.2, 0.8),
    "sadness": (-0.7, -0.3),
    "anger": (-0.5, 0.7),
    "disgust": (-0.7, 0.3),
    "fear": (-0.3, 0.8),
    "contempt": (-0.5, 0.1),
    "other": (0.1, -0.3),
}


@dataclass(frozen=True, slots=True)
class NearestFaces:
    """The K nearest of each of M faces, nearest first, never the face itself.

    Attributes:
        rows: (M, K) int64.
        similarity: (M, K) float32 in 0..1.
    """

    rows: torch.Tensor
    similarity: torch.Tensor


def nearest_faces(valence_arousal: torch.Tensor, count: int, *, squared: bool = False) -> NearestFaces:
    """Return the `count` faces nearest to each (Euclidean), and how similar they are.

    The similarity is exp(-||v_i - v_k||_1 / 0.5), as in the authors' code; with `squared`
    exp(-||v_i - v_k||^2 / 0.5), the form that the paper is said to print (A25).

    Args:
        valence_arousal: (M, 2) in -1..1.
        count: K.
        squared: which similarity.

    Raises:
        TrainingError: values are missing, or there are too few faces.
    """
    from sklearn.neighbors import NearestNeighbors

    missing = int((~torch.isfinite(valence_arousal)).any(dim=1).sum())
    if missing:
        raise TrainingError(f"expected valence and arousal of every face, {missing} have none")
    if not 1 <= count < len(valence_arousal):
        raise TrainingError(f"expected 1 to {len(valence_arousal) - 1} neighbours, got {count}")
    points = valence_arousal.double()
    found = NearestNeighbors(n_neighbors=count + 1, algorithm="kd_tree").fit(points.numpy())
    rows = torch.from_numpy(found.kneighbors(points.numpy(), return_distance=False)).long()
    # Itself is first unless others lie on the very same point, and may then be anywhere or beyond the last.
    itself = rows == torch.arange(len(rows))[:, None]
    itself[~itself.any(dim=1), -1] = True
    rows = rows[~itself].reshape(len(rows), count)
    apart = points[:, None] - points[rows]
    distance = apart.square().sum(dim=2) if squared else apart.abs().sum(dim=2)
    return NearestFaces(rows, torch.exp(-distance / SCALE).float())


def prototype_valence_arousal(
    labels: torch.Tensor, names: Sequence[str], seed: int, scatter: float = 0.15
) -> torch.Tensor:
    """Return stand-ins for the valence and arousal of faces, (M, 2) float32 in -1..1.

    Each is its label's prototype and a normal scatter: what is learnt from them says nothing about faces that
    the label does not, and a comparison that uses them has to say so.

    Args:
        labels: (M,) int64.
        names: of the labels.
        seed: of the scatter.
        scatter: its standard deviation.
    """
    centres = torch.tensor([PROTOTYPES[name] for name in names])
    noise = torch.randn(len(labels), 2, generator=generator(seed, "valence-arousal"))
    return (centres[labels] + scatter * noise).clamp(-1.0, 1.0)


def load_nearest(path: Path, faces: int, count: int) -> NearestFaces:
    """Read neighbours that were computed elsewhere, for training faces in their order.

    Args:
        path: safetensors with `rows` (M, K) int64 and `similarity` (M, K) float32.
        faces: M, of the training set after everything that leaves faces out.
        count: K.

    Raises:
        TrainingError: no such file, of another shape, or values outside their range.
        CheckpointError: no safetensors.
    """
    if not path.is_file():
        raise TrainingError(
            f'expected data.valence_arousal "", "prototypes" or a file of neighbours, got {path}, where '
            "none is"
        )
    tensors, _ = read_safetensors(path)
    shape, empty = (faces, count), torch.empty(0)
    rows, similarity = tensors.get("rows", empty), tensors.get("similarity", empty)
    for name, tensor, kind in (("rows", rows, torch.int64), ("similarity", similarity, torch.float32)):
        if tensor.shape != shape or tensor.dtype != kind:
            got = f"{tuple(tensor.shape)} {tensor.dtype}"
            raise TrainingError(f"{path}: expected {name} of shape {shape} {kind}, got {got}")
    sound = rows.min() >= 0 and rows.max() < faces and similarity.min() >= 0 and similarity.max() <= 1
    if not sound:
        raise TrainingError(f"{path}: expected rows of 0 to {faces - 1} and similarities of 0 to 1")
    return NearestFaces(rows, similarity)
