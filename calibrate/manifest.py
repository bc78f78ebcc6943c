"""Calibration manifests: which faces quantisation looks at, chosen by rule and pinned by hash."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import CalibrationError, InputError
from edge_fer.faces import MANIFEST_FORMAT, Face, FaceSet, face_hash, load_crops, read_data
from edge_fer.labels import LABELS
from edge_fer.preprocess import CropSpec

SAMPLES = 300
MINIMUM = 100
# The size at which duplicates are looked for when no model says another.
HASH_CROP = CropSpec(size=64, margin=0.0)


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """The chosen faces, their crops (N, S, S, 3) uint8, the rule's seed and a warning for the certificate."""

    data: str
    faces: tuple[Face, ...]
    crops: NDArray[np.uint8]
    seed: int
    warning: str | None

    def to_json(self, folder: Path) -> str:
        """Return the manifest's text; files are named relative to `folder`, the manifest's own."""
        entries = [
            {
                "file": os.path.relpath(face.path.resolve(), folder.resolve()),
                "label": None if face.label is None else LABELS[face.label],
                "sha256": hashlib.sha256(face.path.read_bytes()).hexdigest(),
            }
            for face in self.faces
        ]
        content = {
            "format": MANIFEST_FORMAT,
            "data": self.data,
            "seed": self.seed,
            "warning": self.warning,
            "faces": entries,
        }
        return json.dumps(content, indent=1) + "\n"

    def sha256(self) -> str:
        """Return a hash of the chosen pixels in their order: the same faces give the same hash anywhere."""
        return hashlib.sha256(self.crops.tobytes()).hexdigest()


def stratified_order(labels: NDArray[np.int64], seed: int) -> list[int]:
    """Return all faces so that every prefix is as balanced over the classes as the set allows.

    Within a class the order is a seeded shuffle; the classes take turns. Unlabelled faces (-1) are one class.
    """
    generator = np.random.default_rng(seed)
    queues = [list(generator.permutation(np.flatnonzero(labels == label))) for label in np.unique(labels)]
    order: list[int] = []
    while any(queues):
        order += [int(queue.pop()) for queue in queues if queue]
    return order


def choose_faces(
    faces: FaceSet,
    crop: CropSpec,
    *,
    samples: int,
    seed: int,
    exclude: Collection[str],
    explicit: bool,
    progress: Callable[[int], None] | None = None,
) -> CalibrationSet:
    """Choose calibration faces: stratified by class, without duplicates, disjoint from `exclude`.

    Args:
        faces: where to choose from.
        crop: how a face is cut.
        samples: how many faces are wanted.
        seed: of the choice.
        exclude: `face_hash` of faces that must not be used (the parity set).
        explicit: True when the user asked for this number; then fewer than 100 are a warning, not an error.
        progress: called with the number of faces read.

    Raises:
        CalibrationError: too few faces.
    """
    labels = np.array([-1 if face.label is None else face.label for face in faces.faces], np.int64)
    chosen: list[Face] = []
    crops: list[NDArray[np.uint8]] = []
    seen = set(exclude)
    for index in stratified_order(labels, seed):
        if len(chosen) == samples:
            break
        face = faces.faces[index]
        pixels = load_crops(FaceSet(faces.name, faces.labels, (face,), faces.note), crop)[0]
        digest = face_hash(pixels)
        if digest in seen:
            continue
        seen.add(digest)
        chosen.append(face)
        crops.append(pixels)
        if progress is not None:
            progress(len(chosen))
    warning = check_size(faces.name, len(chosen), explicit=explicit)
    return CalibrationSet(faces.name, tuple(chosen), np.stack(crops), seed, warning)


def is_manifest(data: str) -> bool:
    """Tell whether DATA names a manifest, as `read_data` does."""
    return Path(data).suffix.lower() == ".json" and not Path(data).is_dir()


def whole_manifest(
    path: Path, crop: CropSpec, *, explicit: bool, progress: Callable[[int], None] | None = None
) -> CalibrationSet:
    """Take every face of a manifest, in its order.

    Args:
        path: the manifest; the hash of every file in it is checked.
        crop: how a face is cut.
        explicit: True when the user asked for so few faces. A manifest that was made small on purpose says so
            itself, in its warning.
        progress: called with the number of faces read.

    Raises:
        InputError: not a manifest, or a file changed.
        CalibrationError: too few faces.
    """
    faces = read_data(str(path))
    about = json.loads(path.read_text(encoding="utf-8"))
    seed, warned = about.get("seed", 0), about.get("warning")
    if type(seed) is not int or not isinstance(warned, str | None):
        raise InputError(f"{path}: expected a whole number as `seed` and a text or null as `warning`")
    warning = check_size(str(path), len(faces.faces), explicit=explicit or bool(warned))
    return CalibrationSet(faces.name, faces.faces, load_crops(faces, crop, progress), seed, warning)


def check_size(name: str, found: int, *, explicit: bool) -> str | None:
    """Return the warning a small set carries, None for a large enough one.

    Raises:
        CalibrationError: fewer than 100 faces that nobody asked for, or none at all.
    """
    if found >= MINIMUM:
        return None
    if found == 0 or not explicit:
        raise CalibrationError(
            f"{name}: expected at least {MINIMUM} different calibration faces outside the parity set, "
            f"got {found}; give more faces, or fewer on purpose with --samples"
        )
    return f"calibrated on {found} faces, fewer than {MINIMUM}"
