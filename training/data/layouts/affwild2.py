"""Aff-Wild2: EXPR_Classification_Challenge/SET/VIDEO.txt and cropped_aligned/VIDEO/00001.jpg."""

from __future__ import annotations

from pathlib import Path

from edge_fer.errors import InputError
from edge_fer.faces import Face, FaceSet
from edge_fer.labels import LABELS_WITH_OTHER
from training.data.layouts.listing import find_folder, folder_names, read_text, subfolders
from training.data.layouts.orders import AFFWILD2, label_of

ANNOTATIONS = "EXPR_Classification_Challenge"
PICTURES = "cropped_aligned"
_SETS = {"train": "Train_Set", "valid": "Validation_Set"}
_UNLABELLED = "-1"
_HEADER = tuple(AFFWILD2.values())


def read(root: Path, split: str) -> FaceSet:
    """List the labelled frames of a split that have a cropped face; column `video` says of which video.

    Frames are numbered from 1, as the lines below the header are. A frame in which the release found no face
    has no picture: `note` counts those, and the unlabelled ones.

    Args:
        root: the folder that holds cropped_aligned and, directly or one folder below, the annotations.
        split: train or valid.

    Raises:
        InputError: a missing folder, or an unknown header or label, with its line.
    """
    below = [f"{name}/{ANNOTATIONS}" for name in subfolders(root)]
    notes = find_folder(root, ANNOTATIONS, *below) if below else find_folder(root, ANNOTATIONS)
    lists = [name for name in folder_names(notes / _SETS[split]) if name.endswith(".txt")]
    videos = set(subfolders(root / PICTURES))
    missing = [name for name in lists if name.removesuffix(".txt") not in videos]
    if missing:
        raise InputError(
            f"{root / PICTURES}: {len(missing)} of {len(lists)} videos missing, first that of {missing[0]!r}"
        )
    faces: list[Face] = []
    unlabelled = absent = 0
    for name in lists:
        video = name.removesuffix(".txt")
        codes = _codes(notes / _SETS[split] / name)
        pictures = {Path(picture).stem: picture for picture in folder_names(root / PICTURES / video)}
        columns = {"video": video}  # one mapping for all frames: there are a million
        for number, (where, code) in enumerate(codes, 1):
            if code == _UNLABELLED:
                unlabelled += 1
                continue
            label = label_of(AFFWILD2, code, where, LABELS_WITH_OTHER)
            picture = pictures.get(f"{number:05d}")
            if picture is None:
                absent += 1
            else:
                faces.append(Face(root / PICTURES / video / picture, label, None, columns))
    lost = f"{unlabelled} frames left out without a label, {absent} without a face"
    note = lost if unlabelled + absent else ""
    return FaceSet(f"affwild2:{split}", LABELS_WITH_OTHER, tuple(faces), note)


def _codes(path: Path) -> list[tuple[str, str]]:
    """Return where each frame's code stands and the code."""
    header, *lines = read_text(path).rstrip().split("\n")
    names = tuple(name.strip().lower() for name in header.split(","))
    if names not in (_HEADER, _HEADER[:-1]):  # seven in the first challenge
        raise InputError(f"{path}:1: expected the header {','.join(_HEADER)}, got {header.strip()[:80]!r}")
    return [(f"{path}:{number}", line.strip()) for number, line in enumerate(lines, 2)]
