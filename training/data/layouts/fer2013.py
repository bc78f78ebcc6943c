"""FER2013: fer2013.csv with the columns emotion, pixels and Usage, unpacked once into a folder per class."""

from __future__ import annotations

import csv
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edge_fer.errors import InputError
from edge_fer.faces import FaceSet, read_data
from edge_fer.images import encode_png
from edge_fer.labels import LABELS
from training.data.layouts.orders import FER2013, label_of

FILE = "fer2013.csv"
SIDE = 48
_COLUMNS = ("emotion", "pixels", "Usage")
_SPLITS = {"Training": "train", "PublicTest": "valid", "PrivateTest": "test"}


def read(root: Path, split: str) -> FaceSet:
    """List the faces of a split.

    The CSV holds the pixels themselves; they are written once as pictures into a folder beside it, named by
    the CSV's hash: train, valid and test, each a folder per class, which is DATA for every command.

    Args:
        root: the CSV, or the folder that holds fer2013.csv.
        split: train, valid or test.

    Raises:
        InputError: the CSV is missing or malformed (with the line), or the folder cannot be written.
    """
    path = root / FILE if root.is_dir() else root
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    folder = path.with_name(f"{path.stem}-faces-{digest}")
    if not folder.is_dir():
        unpack(path, folder)
    if not (folder / split).is_dir():
        raise InputError(f"{path}: expected faces of the split {split!r}, got none")
    return FaceSet(f"fer2013:{split}", LABELS, read_data(str(folder / split)).faces, "")


def unpack(path: Path, folder: Path) -> None:
    """Write the faces of the CSV as `folder`/SPLIT/LABEL/ROW.png; all of them, or nothing.

    Raises:
        InputError: the CSV is malformed, or the place cannot be written to.
    """
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            made = Path(temporary) / "made"
            made.mkdir()
            for line, split, label, pixels in _rows(path):
                place = made / split / label
                place.mkdir(parents=True, exist_ok=True)
                gray = np.frombuffer(pixels, np.uint8).reshape(SIDE, SIDE)
                (place / f"{line - 2:05d}.png").write_bytes(encode_png(gray))
            if not any(made.iterdir()):
                raise InputError(f"{path}: expected at least one face, got none")
            os.replace(made, folder)
    except OSError as error:
        if folder.is_dir():  # another run was faster
            return
        raise InputError(f"{folder}: cannot be written: {error.strerror or error}") from None


def _rows(path: Path) -> Iterator[tuple[int, str, str, bytes]]:
    """Yield line, split, label and the pixels of every face."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, restval="", skipinitialspace=True)
            absent = [column for column in _COLUMNS if column not in (rows.fieldnames or ())]
            if absent:
                raise InputError(
                    f"{path}: expected the columns {', '.join(_COLUMNS)}, {absent[0]!r} is missing"
                )
            for row in rows:
                where = f"{path}:{rows.line_num}"
                split = _SPLITS.get(row["Usage"].strip())
                if split is None:
                    known = ", ".join(_SPLITS)
                    raise InputError(f"{where}: unknown Usage {row['Usage']!r}, expected {known}")
                label = LABELS[label_of(FER2013, row["emotion"].strip(), where)]
                yield rows.line_num, split, label, _pixels(row["pixels"], where)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a UTF-8 CSV file: {error}") from None


def _pixels(text: str, where: str) -> bytes:
    parts = text.split()
    try:
        pixels = bytes(map(int, parts))
    except ValueError:
        pixels = b""
    if len(pixels) != SIDE * SIDE:
        raise InputError(f"{where}: expected {SIDE * SIDE} pixels of 0 to 255, got {len(parts)} values")
    return pixels
