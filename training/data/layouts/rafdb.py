"""RAF-DB, basic set: EmoLabel/list_patition_label.txt and Image/aligned/NAME_aligned.jpg."""

from __future__ import annotations

from pathlib import Path

from edge_fer.errors import InputError
from edge_fer.faces import Face, FaceSet
from edge_fer.labels import LABELS
from training.data.layouts.listing import check_present, find_folder, numbered_lines, plain_name
from training.data.layouts.orders import RAFDB, label_of

LIST = "list_patition_label.txt"  # spelt so in the release


def read(root: Path, split: str) -> FaceSet:
    """List the aligned faces of a split, whose names begin with train_ or test_.

    Args:
        root: the folder `basic`, or the one that holds it.
        split: train or test.

    Raises:
        InputError: a missing file or an unknown label, with its line.
    """
    labelled = find_folder(root, "EmoLabel", "basic/EmoLabel")
    pictures = labelled.with_name("Image") / "aligned"
    faces: list[Face] = []
    for number, line in numbered_lines(labelled / LIST):
        where = f"{labelled / LIST}:{number}"
        parts = line.split()
        if len(parts) != 2:
            raise InputError(f"{where}: expected a picture's name and its label, got {line!r}")
        name, label = plain_name(parts[0], where), label_of(RAFDB, parts[1], where)
        stem = Path(name).stem
        part = stem.partition("_")[0]
        if part not in ("train", "test"):
            raise InputError(f"{where}: expected a name that begins with train_ or test_, got {name!r}")
        if part == split:
            faces.append(Face(pictures / f"{stem}_aligned.jpg", label, None))
    check_present(pictures, [face.path.name for face in faces])
    return FaceSet(f"rafdb:{split}", LABELS, tuple(faces), "")
