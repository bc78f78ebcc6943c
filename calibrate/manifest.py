"""Calibration manifests: which faces quantisation looks at, chosen by rule and pinned by hash."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibrate.strata import stratified_order
from edge_fer.errors import CalibrationError, InputError
from edge_fer.faces import MANIFEST_FORMAT, Face, FaceSet, face_hash, load_crops
from edge_fer.labels import LABELS
from edge_fer.preprocess import CropSpec

SAMPLES = 300
MINIMUM = 100
# How many times the wanted faces are scored, to choose among them by confidence: enough that every class has
# sure and unsure ones to offer, and far from all the 28,000 of a large set.
POOL = 4
# The size at which duplicates are looked for when no model says another.
HASH_CROP = CropSpec(size=64, margin=0.0)


Confidence = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """The chosen faces and how they were chosen.

    Attributes:
        data: what they were chosen from.
        faces: in the order of the choice.
        crops: (N, S, S, 3) uint8 RGB, theirs.
        seed: of the choice.
        warning: for the certificate; None when there is nothing to warn of.
        confidence: (N,) float32, the float model's `reliability` of each face; None: chosen by class only.
        scored_by: SHA-256 that identifies that model, a bundle's digest.
        labels: what the faces' label numbers mean.
    """

    data: str
    faces: tuple[Face, ...]
    crops: NDArray[np.uint8]
    seed: int
    warning: str | None
    confidence: NDArray[np.float32] | None = None
    scored_by: str | None = None
    labels: tuple[str, ...] = LABELS

    def to_json(self, folder: Path) -> str:
        """Return the manifest's text; files are named relative to `folder`, the manifest's own."""
        entries: list[dict[str, object]] = [
            {
                "file": os.path.relpath(face.path.resolve(), folder.resolve()),
                "label": None if face.label is None else self.labels[face.label],
                "sha256": hashlib.sha256(face.path.read_bytes()).hexdigest(),
            }
            for face in self.faces
        ]
        if self.confidence is not None:
            for entry, score in zip(entries, self.confidence.tolist(), strict=True):
                entry["confidence"] = round(score, 6)
        content = {
            "format": MANIFEST_FORMAT,
            "data": self.data,
            "seed": self.seed,
            "warning": self.warning,
            "bundle": self.scored_by,
            "faces": entries,
        }
        return json.dumps(content, indent=1) + "\n"

    def sha256(self) -> str:
        """Return a hash of the chosen pixels in their order: the same faces give the same hash anywhere."""
        return hashlib.sha256(self.crops.tobytes()).hexdigest()


def choose_faces(
    faces: FaceSet,
    crop: CropSpec,
    *,
    samples: int,
    seed: int,
    exclude: Collection[str],
    explicit: bool,
    confidence: Confidence | None = None,
    progress: Callable[[int], None] | None = None,
) -> CalibrationSet:
    """Choose calibration faces: stratified by class, without duplicates, disjoint from `exclude`.

    With `confidence` they are stratified by that, too: of `POOL` times as many faces, drawn by class, those
    are chosen that spread evenly over the quantiles of their own class.

    Args:
        faces: where to choose from.
        crop: how a face is cut.
        samples: how many faces are wanted.
        seed: of the choice.
        exclude: `face_hash` of faces that must not be used (the parity set).
        explicit: True when the user asked for this number; then fewer than 100 are a warning, not an error.
        confidence: maps crops (N, S, S, 3) uint8 to how sure a float model is of each, (N,).
        progress: called with the number of faces read.

    Raises:
        CalibrationError: too few faces, or a confidence that is no number.
    """
    labels = np.array([-1 if face.label is None else face.label for face in faces.faces], np.int64)
    wanted = samples if confidence is None else POOL * samples
    order = stratified_order(labels, seed)
    places, crops = draw(faces, crop, order, wanted, exclude, progress)
    warning = check_size(faces.name, min(len(places), samples), explicit=explicit)
    drawn = tuple(faces.faces[place] for place in places)
    pool = CalibrationSet(faces.name, drawn, np.stack(crops), seed, warning, labels=faces.labels)
    if confidence is None:
        return pool
    scores = np.asarray(confidence(pool.crops), np.float32)
    finite = np.count_nonzero(np.isfinite(scores))
    if scores.shape != (len(places),) or finite < len(places):
        raise CalibrationError(f"expected a finite confidence of each of {len(places)} faces, got {finite}")
    kept = stratified_order(labels[places], seed, scores)[:samples]
    chosen = tuple(drawn[index] for index in kept)
    return replace(pool, faces=chosen, crops=pool.crops[kept], confidence=scores[kept])


def draw(
    faces: FaceSet,
    crop: CropSpec,
    order: list[int],
    wanted: int,
    exclude: Collection[str],
    progress: Callable[[int], None] | None,
) -> tuple[list[int], list[NDArray[np.uint8]]]:
    """Read faces in order until enough differ from each other and from `exclude`; return places and crops."""
    places: list[int] = []
    crops: list[NDArray[np.uint8]] = []
    seen = set(exclude)
    for place in order:
        if len(places) == wanted:
            break
        pixels = load_one(faces, place, crop)
        digest = face_hash(pixels)
        if digest in seen:
            continue
        seen.add(digest)
        places.append(place)
        crops.append(pixels)
        if progress is not None:
            progress(len(places))
    return places, crops


def hash_faces(faces: FaceSet, crop: CropSpec, progress: Callable[[int], None]) -> set[str]:
    """Return the `face_hash` of every face, for `exclude`; a set to leave out may be larger than memory."""
    found = set()
    for place in range(len(faces.faces)):
        found.add(face_hash(load_one(faces, place, crop)))
        progress(place + 1)
    return found


def load_one(faces: FaceSet, place: int, crop: CropSpec) -> NDArray[np.uint8]:
    """Read one face of a set: (S, S, 3) uint8 RGB."""
    return load_crops(replace(faces, faces=(faces.faces[place],)), crop)[0]


def is_manifest(data: str) -> bool:
    """Tell whether DATA names a manifest, as `read_data` does."""
    return Path(data).suffix.lower() == ".json" and not Path(data).is_dir()


def whole_manifest(
    path: Path,
    faces: FaceSet,
    crop: CropSpec,
    *,
    explicit: bool,
    progress: Callable[[int], None] | None = None,
) -> CalibrationSet:
    """Take every face of a manifest, in its order.

    Args:
        path: the manifest.
        faces: what `read_data` listed of it, which checked the hash of every file.
        crop: how a face is cut.
        explicit: True when the user asked for so few faces. A manifest that was made small on purpose says so
            itself, in its warning.
        progress: called with the number of faces read.

    Raises:
        InputError: what it says beside the faces is malformed.
        CalibrationError: too few faces.
    """
    about = json.loads(path.read_text(encoding="utf-8"))
    seed, warned, bundle = about.get("seed", 0), about.get("warning"), about.get("bundle")
    if type(seed) is not int or not isinstance(warned, str | None) or not isinstance(bundle, str | None):
        raise InputError(
            f"{path}: expected a whole number as `seed`, a text or null as `warning` and as `bundle`"
        )
    scores = read_confidence(path, [entry.get("confidence") for entry in about["faces"]])
    warning = check_size(str(path), len(faces.faces), explicit=explicit or bool(warned))
    crops = load_crops(faces, crop, progress)
    return CalibrationSet(faces.name, faces.faces, crops, seed, warning, scores, bundle, faces.labels)


def read_confidence(path: Path, values: list[object]) -> NDArray[np.float32] | None:
    """Return the faces' confidence, None where the manifest has none, as those made by class only.

    Raises:
        InputError: some faces have none, or it is no number from 0 to 1.
    """
    if all(value is None for value in values):
        return None
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) != len(values) or not all(0 <= number <= 1 for number in numbers):
        raise InputError(f"{path}: expected a `confidence` from 0 to 1 of every face, or of none")
    return np.array(numbers, np.float32)


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
