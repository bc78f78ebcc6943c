"""JAFFE: pictures named SUBJECT.EXPRESSION.NUMBER.tiff, such as KA.AN1.39.tiff."""

from __future__ import annotations

import re
from pathlib import Path

from edge_fer.errors import InputError
from edge_fer.faces import Face, FaceSet
from edge_fer.images import folder_images
from edge_fer.labels import LABELS
from training.data.layouts.listing import find_folder
from training.data.layouts.orders import JAFFE, label_of

_NAME = re.compile(r"([A-Z]{2})\.([A-Z]{2})[0-9]+\.[0-9.]+\.[A-Za-z]+")


def read(root: Path, split: str) -> FaceSet:
    """List the faces; column `subject` is who it is. There are no official splits.

    Args:
        root: the folder of the pictures, or the one that holds it as `jaffe`.
        split: not looked at.

    Raises:
        InputError: no pictures, or one whose name says no subject and expression.
    """
    faces = []
    for path in folder_images(find_folder(root, "jaffe", ".")):
        parts = _NAME.fullmatch(path.name)
        if parts is None:
            raise InputError(f"{path}: expected a name such as KA.AN1.39.tiff")
        faces.append(Face(path, label_of(JAFFE, parts[2], str(path)), None, {"subject": parts[1]}))
    return FaceSet("jaffe", LABELS, tuple(faces), "")
