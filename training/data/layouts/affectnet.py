"""AffectNet, the release of cropped faces: train_set and val_set, each with images/ and annotations/.

The older release, lists with boxes in uncropped pictures, is refused: its pictures are no face crops.
"""

from __future__ import annotations

import ast
import struct
from pathlib import Path

import numpy as np

from edge_fer.errors import InputError
from edge_fer.faces import Face, FaceSet
from edge_fer.labels import LABELS
from training.data.layouts.listing import folder_names
from training.data.layouts.orders import AFFECTNET, label_of

_FOLDERS = {"train": "train_set", "valid": "val_set"}
_OLD_FOLDER = "Manually_Annotated_file_lists"
_NOT_EMOTIONS = ("8", "9", "10")  # none, uncertain, no face
_EXPRESSION = "_exp.npy"
_LARGEST = 4096  # bytes; what is looked for is one number
_DAMAGE = (
    IndexError,
    KeyError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)


def read_7(root: Path, split: str) -> FaceSet:
    """List the faces of a split without those of contempt; see `read`."""
    return read(root, split, classes=7)


def read_8(root: Path, split: str) -> FaceSet:
    """List the faces of a split, contempt among them; see `read`."""
    return read(root, split, classes=8)


def read(root: Path, split: str, classes: int) -> FaceSet:
    """List the faces of a split with their valence and arousal (columns, where annotated).

    Args:
        root: the folder that holds train_set and val_set.
        split: train or valid.
        classes: 7 leaves contempt out.

    Raises:
        InputError: missing pictures or annotations, or an annotation that is no such number.
    """
    if (root / _OLD_FOLDER).exists():
        raise InputError(
            f"{root}: this is AffectNet's older release, boxes in uncropped pictures; expected the one of "
            "cropped faces, train_set and val_set; get that one, or crop the faces into a folder per class"
        )
    pictures, notes = (root / _FOLDERS[split] / name for name in ("images", "annotations"))
    by_stem = {Path(name).stem: name for name in folder_names(pictures)}
    annotated = folder_names(notes)
    stems = [name.removesuffix(_EXPRESSION) for name in annotated if name.endswith(_EXPRESSION)]
    missing = [stem for stem in stems if stem not in by_stem]
    if missing:
        raise InputError(
            f"{pictures}: {len(missing)} of {len(stems)} pictures missing, first that of "
            f"{missing[0] + _EXPRESSION!r}"
        )
    unlabelled = sorted(by_stem.keys() - set(stems))
    if unlabelled:
        raise InputError(
            f"{notes}: {len(unlabelled)} of {len(by_stem)} annotations missing, first "
            f"{unlabelled[0] + _EXPRESSION!r}"
        )
    present = set(annotated)
    faces = [_face(pictures / by_stem[stem], notes, present, classes) for stem in stems]
    kept = tuple(face for face in faces if face is not None)
    lost = len(faces) - len(kept)
    note = f"{lost} of {len(faces)} faces left out: none of the {classes} emotions" if lost else ""
    return FaceSet(f"affectnet{classes}:{split}", LABELS, kept, note)


def _face(picture: Path, notes: Path, present: set[str], classes: int) -> Face | None:
    path = notes / f"{picture.stem}{_EXPRESSION}"
    code = f"{read_number(path):g}"
    if code in _NOT_EMOTIONS:
        return None
    label = label_of(AFFECTNET, code, str(path))
    if label >= classes:
        return None
    columns = {}
    for column, suffix in (("valence", "_val.npy"), ("arousal", "_aro.npy")):
        if picture.stem + suffix in present:
            value = read_number(notes / (picture.stem + suffix))
            if value != -2:  # not annotated
                columns[column] = f"{value:.6g}"
    return Face(picture, label, None, columns)


def read_number(path: Path) -> float:
    """Return the one number in a .npy file, written as a number or as text; nothing is unpickled.

    Raises:
        InputError: unreadable, or not one finite number.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        if len(data) > _LARGEST or data[:6] != b"\x93NUMPY" or data[6] not in (1, 2):
            raise ValueError
        layout, start = ("<H", 10) if data[6] == 1 else ("<I", 12)
        end = start + struct.unpack_from(layout, data, 8)[0]
        header = ast.literal_eval(data[start:end].decode("latin-1").strip())
        kind = np.dtype(header["descr"])
        if header["shape"] not in ((), (1,)) or kind.kind not in "iufU" or len(data) < end + kind.itemsize:
            raise ValueError
        value = float(np.frombuffer(data, kind, 1, end)[0])
        if not np.isfinite(value):
            raise ValueError
    except _DAMAGE:
        raise InputError(f"{path}: expected a .npy file of one number") from None
    return value
