"""The one reader of DATA: a folder per class, the FER+ layout, a CSV file or a calibration manifest."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import InputError
from edge_fer.images import folder_images, read_image
from edge_fer.labels import LABELS, LABELS_WITH_OTHER, OTHER, canonical
from edge_fer.preprocess import CropSpec, crop_whole

MANIFEST_FORMAT = "edge-fer-manifest-1"
FERPLUS_LABELS_FILE = "fer2013new.csv"
_EXPECTED = "a folder per class, ferplus:DIR, a .csv or a manifest .json"
_FERPLUS_PREFIX = "ferplus:"
_OTHER_LAYOUT = re.compile(r"[a-z]{2,}[0-9]*:(?!//).")  # two letters: C: is a drive
_FERPLUS_SPLITS = {
    "train": ("Training", "FER2013Train"),
    "valid": ("PublicTest", "FER2013Valid"),
    "test": ("PrivateTest", "FER2013Test"),
}
_FERPLUS_VOTES = (*LABELS, "unknown", "NF")  # the file's column order is ours


@dataclass(frozen=True, slots=True)
class Face:
    """One picture that is a face crop.

    Attributes:
        path: The picture file.
        label: Index into the labels of its set, or None when not known.
        votes: Eight vote counts in the order of LABELS (FER+ only), else None.
        columns: What a CSV says of it beside file and label, by column.
    """

    path: Path
    label: int | None
    votes: tuple[float, ...] | None
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class FaceSet:
    """A data set in a fixed order, of LABELS or LABELS_WITH_OTHER; `note` says in words what was left out."""

    name: str
    labels: tuple[str, ...]
    faces: tuple[Face, ...]
    note: str


def read_data(data: str) -> FaceSet:
    """List the faces of DATA without decoding them.

    Args:
        data: A folder with one sub-folder per class; `ferplus:DIR[:train|valid|test]` (valid when not said);
            a `.csv` with the columns file (relative to the CSV) and label; or a manifest `.json`, whose file
            hashes are checked. A set with the label `other` has it in the place of contempt.

    Raises:
        InputError: missing, empty or malformed; the text names the file and line.
    """
    if not data.strip():
        raise InputError("empty DATA: expected a folder per class, ferplus:DIR, a .csv or a manifest .json")
    if data.startswith(_FERPLUS_PREFIX):
        return _read_ferplus(data[len(_FERPLUS_PREFIX) :])
    path = Path(data)
    if path.is_dir():
        faces = _read_folder(path)
    elif not path.exists():
        raise InputError(f"{data}: no such file or folder; expected {_EXPECTED}{_advice(data)}")
    elif path.suffix.lower() == ".csv":
        faces = _read_csv(path)
    elif path.suffix.lower() == ".json":
        faces = _read_manifest(path)
    else:
        raise InputError(f"{data}: expected {_EXPECTED}")
    if not faces:
        raise InputError(f"{data}: expected at least one face, got none")
    return _one_set(data, path.resolve().stem, faces)


def load_crops(
    faces: FaceSet, spec: CropSpec, progress: Callable[[int], None] | None = None
) -> NDArray[np.uint8]:
    """Decode every face and bring it to the crop size, in order: (N, S, S, 3) uint8 RGB 0..255.

    `progress` is called with the number of faces done so far.

    Raises:
        InputError: a picture that cannot be read.
    """
    crops = np.empty((len(faces.faces), spec.size, spec.size, 3), np.uint8)
    for index, face in enumerate(faces.faces):
        crops[index] = crop_whole(read_image(face.path), spec)
        if progress is not None:
            progress(index + 1)
    return crops


def face_hash(crop: NDArray[np.uint8]) -> str:
    """Return the SHA-256 (hex) of a crop's bytes; rows of reference outputs are matched to crops by it."""
    return hashlib.sha256(np.ascontiguousarray(crop).tobytes()).hexdigest()


def _read_folder(folder: Path) -> list[Face]:
    try:
        classes = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror or error}") from None
    if not classes:
        raise InputError(f"{folder}: expected one sub-folder per class ({', '.join(LABELS)}), got none")
    faces: list[Face] = []
    for entry in classes:
        try:
            label = _number(entry.name)
        except InputError as error:
            raise InputError(f"{entry}: {error}") from None
        faces += [Face(path, label, None) for path in folder_images(entry)]
    return faces


def _read_ferplus(source: str) -> FaceSet:
    root, split = source, "valid"
    head, colon, tail = source.rpartition(":")
    if colon and tail in _FERPLUS_SPLITS:
        root, split = head, tail
    usage, folder_name = _FERPLUS_SPLITS[split]
    folder = Path(root) / folder_name
    rows = [row for row in _ferplus_rows(Path(root) / FERPLUS_LABELS_FILE) if row[0] == usage]
    faces: list[Face] = []
    for _, name, votes in rows:
        winner = votes.index(max(votes))  # ties go to the first column
        if winner < len(LABELS) and any(votes):
            faces.append(Face(folder / name, winner, votes[: len(LABELS)]))
    if not faces:
        raise InputError(f"{root}: expected faces of the split {split!r}, got none in {FERPLUS_LABELS_FILE}")
    _check_present(folder, faces)
    lost = len(rows) - len(faces)
    note = f"{lost} of {len(rows)} faces left out: most votes on unknown or NF" if lost else ""
    return FaceSet(f"ferplus:{split}", LABELS, tuple(faces), note)


def _ferplus_rows(path: Path) -> list[tuple[str, str, tuple[float, ...]]]:
    """Read usage, picture name and the ten votes of every row."""
    rows: list[tuple[str, str, tuple[float, ...]]] = []
    for line, row in _csv_rows(path, ("Usage", "Image name", *_FERPLUS_VOTES)):
        try:
            votes = tuple(float(row[column]) for column in _FERPLUS_VOTES)
        except ValueError:
            votes = ()
        if not votes or not all(0 <= vote < 1e6 for vote in votes):
            found = [row[column] for column in _FERPLUS_VOTES]
            raise InputError(f"{path}:{line}: expected ten vote counts, got {found}")
        rows.append((row["Usage"], row["Image name"], votes))
    return rows


def _check_present(folder: Path, faces: list[Face]) -> None:
    # One listing of the folder, not 28,000 stat calls.
    try:
        present = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror or error}") from None
    names = [str(face.path.relative_to(folder)) for face in faces]  # one that leads elsewhere is not there
    missing = [name for name in names if name not in present]
    if missing:
        raise InputError(f"{folder}: {len(missing)} of {len(faces)} pictures missing, first {missing[0]!r}")


def _csv_rows(path: Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """Read a CSV with a header that has the asked columns: (line number, row with all its columns)."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            absent = [column for column in columns if column not in (reader.fieldnames or ())]
            if absent:
                raise InputError(
                    f"{path}: expected the columns {', '.join(columns)}, {absent[0]!r} is missing"
                )
            named = [column for column in reader.fieldnames or () if column]
            twice = [column for column in named if named.count(column) > 1]
            if twice:
                raise InputError(f"{path}: expected columns of different names, got {twice[0]!r} twice")
            return [(reader.line_num, {column: row[column].strip() for column in named}) for row in reader]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a UTF-8 CSV file: {error}") from None


def _advice(data: str) -> str:
    """Say how DATA that only training reads becomes DATA that everything reads."""
    if not _OTHER_LAYOUT.match(data):
        return ""
    return f"; a layout of training becomes one by: python -m training.data.csv_of {data} --output D.csv"


def _number(name: str) -> int:
    """Return the index into LABELS, or one beyond for `other`; `_one_set` settles it."""
    return (*LABELS, OTHER).index(canonical(name))


def _one_set(data: str, name: str, faces: Sequence[Face]) -> FaceSet:
    contempt, other = len(LABELS) - 1, len(LABELS)
    found = {face.label for face in faces}
    if other not in found:
        return FaceSet(name, LABELS, tuple(faces), "")
    if contempt in found:
        raise InputError(
            f"{data}: expected contempt or {OTHER} as the eighth label, got both; leave the faces of one out"
        )
    moved = (replace(face, label=contempt) if face.label == other else face for face in faces)
    return FaceSet(name, LABELS_WITH_OTHER, tuple(moved), "")


def _label_index(name: str | None, where: str) -> int | None:
    if not name:
        return None
    try:
        return _number(name)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _read_csv(path: Path) -> list[Face]:
    faces: list[Face] = []
    for line, row in _csv_rows(path, ("file", "label")):
        if not row["file"] or "\0" in row["file"]:
            raise InputError(f"{path}:{line}: the column 'file' is empty or not a path")
        picture = path.parent / row["file"]
        if not picture.is_file():
            raise InputError(f"{path}:{line}: no such picture: {picture}")
        others = {column: text for column, text in row.items() if column not in ("file", "label")}
        faces.append(Face(picture, _label_index(row["label"], f"{path}:{line}"), None, others))
    return faces


def label_numbers(faces: FaceSet, labels: Sequence[str]) -> NDArray[np.int64]:
    """Return the place of each face's label among `labels`, (N,) int64; -1: not known, or not among them."""
    places = {name: place for place, name in enumerate(labels)}
    numbers = [-1 if face.label is None else places.get(faces.labels[face.label], -1) for face in faces.faces]
    return np.array(numbers, dtype=np.int64)


def column_values(faces: FaceSet, column: str) -> list[str]:
    """Return what a CSV says of each face under a column, empty where it says nothing.

    Raises:
        InputError: the data are no CSV, or it has no such column.
    """
    known = sorted({name for face in faces.faces for name in face.columns})
    if column not in known:
        has = f"with {', '.join(known)}" if known else "with columns beside file and label"
        raise InputError(f"{faces.name}: expected a CSV {has}, got no column {column!r}")
    return [face.columns.get(column, "") for face in faces.faces]


def _read_manifest(path: Path) -> list[Face]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: expected a manifest in JSON: {error}") from None
    found = content.get("format") if isinstance(content, dict) else None
    if found != MANIFEST_FORMAT:
        raise InputError(f"{path}: expected a manifest of format {MANIFEST_FORMAT!r}, got {found!r}")
    entries = content.get("faces")
    if not isinstance(entries, list):
        raise InputError(f"{path}: expected a list under the key 'faces'")
    return [_manifest_face(path, number, entry) for number, entry in enumerate(entries)]


def _manifest_face(manifest: Path, number: int, entry: object) -> Face:
    where = f"{manifest}: face {number}"
    values = entry if isinstance(entry, dict) else {}
    file, label, digest = values.get("file"), values.get("label"), values.get("sha256")
    labelled = label is None or isinstance(label, str)
    if not isinstance(file, str) or not isinstance(digest, str) or not labelled:
        raise InputError(f"{where}: expected the keys file, label and sha256")
    picture = manifest.parent / file
    try:
        actual = hashlib.sha256(picture.read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        raise InputError(f"{where}: {picture} cannot be read: {error}") from None
    if actual != digest:
        raise InputError(f"{where}: {picture} has changed since the manifest was made; run calibrate again")
    return Face(picture, _label_index(label, where), None)
