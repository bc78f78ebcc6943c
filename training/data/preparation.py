"""What a recipe makes of the training faces before the first step: fewer, unevenly many, wrongly labelled."""

from __future__ import annotations

from pathlib import Path

from edge_fer.errors import TrainingError
from training.data.faces import FaceTensors
from training.data.imbalance import imbalanced_rows
from training.data.neighbours import NearestFaces, load_nearest, nearest_faces, prototype_valence_arousal
from training.data.noise import add_noise
from training.data.subset import stratified_rows
from training.options import DataOptions

PROTOTYPES = "prototypes"


def prepare(faces: FaceTensors, options: DataOptions, classes: int) -> FaceTensors:
    """Return the faces that a run trains on; the same ones whatever their crops are.

    Raises:
        TrainingError: a subset larger than the set, or an imbalance below the set's own.
    """
    seed = options.seed
    if options.subset:
        faces = faces.take(stratified_rows(faces.labels, options.subset, seed))
    if options.imbalance:
        faces = faces.take(imbalanced_rows(faces.labels, options.imbalance, seed))
    return add_noise(faces, options.noise, classes, seed).faces if options.noise else faces


def find_neighbours(
    faces: FaceTensors, options: DataOptions, labels: tuple[str, ...], count: int, *, squared: bool = False
) -> NearestFaces:
    """Return the `count` nearest training faces of each, by what `options.valence_arousal` names.

    `squared` takes the paper's form of their similarity.

    Raises:
        TrainingError: the faces have no valence and arousal, or the file of neighbours is not of these faces.
    """
    source = options.valence_arousal
    if source not in ("", PROTOTYPES):
        return load_nearest(Path(source), len(faces), count)
    known = faces.valence_arousal
    if source == PROTOTYPES:
        known = prototype_valence_arousal(faces.labels, labels, options.seed)
    if known is None or not bool(known.isfinite().all()):
        raise TrainingError(
            "expected valence and arousal of every training face, got faces without; give columns valence "
            'and arousal in a CSV, a file of neighbours as data.valence_arousal, or "prototypes" as stand-ins'
        )
    return nearest_faces(known, count, squared=squared)
