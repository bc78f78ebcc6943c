"""The faces that an evaluation is of: tensors, names, what was left out, and which set it is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_fer.faces import face_hash, label_numbers
from edge_fer.preprocess import CropSpec
from training.data.faces import FaceTensors, left_out, load_listed
from training.data.labelled import read_labelled

IDENTITY_CROP = CropSpec(size=48, margin=0.0)
"""The crops whose pixels make two sets the same, whatever size the networks see them at."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFaces:
    """Faces of known labels, as one network sees them.

    Attributes:
        tensors: crops (N, S, S, 3) uint8 RGB, labels (N,), votes (N, C) or None.
        labels: the names of the C classes.
        names: of the N pictures, each with its folder.
        note: what was left out, in words; may be empty.
        digest: SHA-256 over small crops and labels, in order: equal for the same faces at any input size.
    """

    tensors: FaceTensors
    labels: tuple[str, ...]
    names: tuple[str, ...]
    note: str
    digest: str

    @property
    def numbers(self) -> NDArray[np.int64]:
        """The true label of each face, (N,) int64."""
        return np.asarray(self.tensors.labels.numpy())

    def hashes(self) -> list[str]:
        """Return the hash of each crop, by which reference outputs of the same input size know it."""
        return [face_hash(crop) for crop in self.tensors.crops.numpy()]


def read_faces(data: str, crop: CropSpec, labels: tuple[str, ...]) -> LabelledFaces:
    """Read DATA for a network of these labels.

    Faces of classes that the network does not know are left out, which the note says.

    Raises:
        InputError: unreadable data, faces without labels, none that the network knows.
    """
    listed = read_labelled(data)
    tensors = load_listed(listed, data, crop, labels)
    small = tensors if crop.size == IDENTITY_CROP.size else load_listed(listed, data, IDENTITY_CROP, labels)
    numbers = label_numbers(listed, labels)
    kept = [face for face, number in zip(listed.faces, numbers, strict=True) if number >= 0]
    return LabelledFaces(
        tensors,
        labels,
        tuple(f"{face.path.parent.name}/{face.path.name}" for face in kept),
        left_out(listed, labels),
        _digest(small),
    )


def _digest(small: FaceTensors) -> str:
    total = hashlib.sha256()
    for pixels, label in zip(small.crops.numpy(), small.labels.tolist(), strict=True):
        total.update(f"{face_hash(pixels)} {label}\n".encode())
    return total.hexdigest()
