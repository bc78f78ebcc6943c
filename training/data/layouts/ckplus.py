"""CK+: cohn-kanade-images/S005/001/*.png and Emotion/S005/001/*_emotion.txt, from neutral to peak."""

from __future__ import annotations

from pathlib import Path

from edge_fer.errors import InputError
from edge_fer.faces import Face, FaceSet
from edge_fer.images import folder_images
from edge_fer.labels import LABELS
from training.data.layouts.listing import find_folder, folder_names, read_text, subfolders
from training.data.layouts.orders import CKPLUS, label_of

PICTURES = "cohn-kanade-images"
PEAK_FRAMES = 3


def read(root: Path, split: str) -> FaceSet:
    """List the faces of the labelled sequences; column `subject` is who it is. There are no official splits.

    The first frame of a labelled sequence is neutral and its last three frames show the emotion, as is usual
    with this set; the frames between are left out, and so are sequences without an emotion.

    Args:
        root: the folder that holds both folders.
        split: not looked at.

    Raises:
        InputError: missing folders or pictures, or an unknown label.
    """
    notes = find_folder(root, "Emotion", "Emotion_labels")
    pictures = find_folder(root, PICTURES)
    faces: list[Face] = []
    sequences = unlabelled = 0
    for subject in subfolders(notes):
        for sequence in subfolders(notes / subject):
            sequences += 1
            folder = notes / subject / sequence
            files = [name for name in folder_names(folder) if name.endswith("_emotion.txt")]
            if not files:
                unlabelled += 1
                continue
            label = _label(folder / files[0])
            faces += _frames(folder_images(pictures / subject / sequence), label, subject)
    note = f"{unlabelled} of {sequences} sequences left out: no emotion" if unlabelled else ""
    return FaceSet("ckplus", LABELS, tuple(faces), note)


def _frames(paths: list[Path], label: int, subject: str) -> list[Face]:
    columns = {"subject": subject}
    peak = paths[max(1, len(paths) - PEAK_FRAMES) :] if label else []  # neutral, 0, has no peak
    return [Face(paths[0], 0, None, columns), *(Face(path, label, None, columns) for path in peak)]


def _label(path: Path) -> int:
    text = read_text(path).strip()
    try:
        code = f"{float(text):g}"  # written as 3.0000000e+00
    except ValueError:
        raise InputError(f"{path}: expected one number, got {text[:40]!r}") from None
    return label_of(CKPLUS, code, str(path))
