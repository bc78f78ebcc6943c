"""FERG-DB: FERG_DB_256/CHARACTER/CHARACTER_EXPRESSION/*.png, of six drawn characters."""

from __future__ import annotations

from pathlib import Path

from edge_fer.errors import InputError
from edge_fer.faces import Face, FaceSet
from edge_fer.images import folder_images
from edge_fer.labels import LABELS
from training.data.layouts.listing import find_folder, subfolders
from training.data.layouts.orders import FERG, label_of


def read(root: Path, split: str) -> FaceSet:
    """List the faces; column `subject` is the character. There are no official splits.

    Args:
        root: the folder FERG_DB_256, or the one that holds it.
        split: not looked at.

    Raises:
        InputError: a folder without pictures, or whose name is not CHARACTER_EXPRESSION.
    """
    top = find_folder(root, "FERG_DB_256", ".")
    faces: list[Face] = []
    for character in subfolders(top):
        columns = {"subject": character}
        for name in subfolders(top / character):
            place = top / character / name
            if not name.startswith(f"{character}_"):
                raise InputError(f"{place}: expected a folder named {character}_EXPRESSION")
            label = label_of(FERG, name.removeprefix(f"{character}_").lower(), str(place))
            faces += [Face(path, label, None, columns) for path in folder_images(place)]
    return FaceSet("ferg", LABELS, tuple(faces), "")
