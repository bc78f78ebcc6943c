"""Faces of one split as tensors: read once through the one preprocessing, kept as uint8."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from edge_fer.errors import InputError
from edge_fer.faces import FaceSet, face_hash, load_crops, read_data
from edge_fer.preprocess import CropSpec


@dataclass(frozen=True, slots=True)
class FaceTensors:
    """Crops (N, S, S, 3) uint8 RGB, labels (N,) int64, votes (N, C) float32 or None."""

    crops: torch.Tensor
    labels: torch.Tensor
    votes: torch.Tensor | None

    def __len__(self) -> int:
        return len(self.labels)


def load_faces(data: str, crop: CropSpec, classes: int) -> FaceTensors:
    """Read DATA into memory.

    Args:
        data: what `edge_fer.faces.read_data` takes.
        crop: how a face is cut; only the whole-picture path is used.
        classes: faces with a label beyond the network's classes are dropped.

    Raises:
        InputError: unreadable data, or faces without labels.
    """
    faces = read_data(data)
    unlabelled = sum(face.label is None for face in faces.faces)
    if unlabelled:
        raise InputError(
            f"{data}: expected a label for every face, {unlabelled} have none; training needs labels"
        )
    kept = tuple(face for face in faces.faces if face.label is not None and face.label < classes)
    if not kept:
        raise InputError(f"{data}: expected faces of the first {classes} labels, got none")
    faces = FaceSet(faces.name, faces.labels, kept, faces.note)
    votes = [face.votes for face in kept if face.votes is not None]
    return FaceTensors(
        torch.from_numpy(load_crops(faces, crop)),
        torch.tensor([face.label for face in kept], dtype=torch.int64),
        torch.tensor(np.asarray(votes, np.float32)[:, :classes]) if len(votes) == len(kept) else None,
    )


def drop_duplicates(faces: FaceTensors, others: FaceTensors) -> FaceTensors:
    """Return `faces` without those whose pixels also occur in `others`, or earlier in `faces`."""
    seen = {face_hash(crop) for crop in others.crops.numpy()}
    keep = []
    for index, crop in enumerate(faces.crops.numpy()):
        digest = face_hash(crop)
        if digest not in seen:
            seen.add(digest)
            keep.append(index)
    votes = None if faces.votes is None else faces.votes[keep]
    return FaceTensors(faces.crops[keep], faces.labels[keep], votes)


def epoch_order(count: int, seed: int, epoch: int) -> torch.Tensor:
    """Return the permutation of one epoch; a function of seed and epoch alone, so that resuming is exact."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 100_003 + epoch))


def batches(order: torch.Tensor, batch_size: int, first: int) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (batch number, indices) from batch `first` on; an incomplete last batch is left out."""
    for number in range(first, len(order) // batch_size):
        yield number, order[number * batch_size : (number + 1) * batch_size]
