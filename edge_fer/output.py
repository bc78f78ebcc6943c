"""What the commands give out: JSON records, CSV rows, files that are whole or absent. Knows no terminal."""

from __future__ import annotations

import csv
import json
import os
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import InputError
from edge_fer.recognizer import Analysis, FaceResult

K = TypeVar("K")

LATENCY_STAGES = ("decode", "detect", "track", "preprocess", "recognise", "total")


@dataclass(frozen=True, slots=True)
class Moment:
    """Which frame of which source an analysis is of.

    Attributes:
        source: the picture, video or stream, as it was named.
        frame: number of the frame, from 0; None for a picture.
        time_s: seconds since the source's start; None for a picture.
    """

    source: str
    frame: int | None = None
    time_s: float | None = None


def analysis_record(moment: Moment, analysis: Analysis) -> dict[str, object]:
    """Return the JSON object of one picture or frame: plain values, None for what is absent."""
    latency = {stage: analysis.latency_ms.get(stage) for stage in LATENCY_STAGES}
    return {
        "source": moment.source,
        "frame": moment.frame,
        "time_s": None if moment.time_s is None else round(moment.time_s, 6),
        "faces": [_face_record(face) for face in analysis.faces],
        "detector": analysis.detector,
        "latency_ms": {stage: None if value is None else round(value, 3) for stage, value in latency.items()},
    }


def json_line(record: Mapping[str, object]) -> str:
    """Return the text of a record, ASCII on one line, without the line's end."""
    return json.dumps(record, allow_nan=False)


def print_json(record: Mapping[str, object]) -> None:
    """Print a record as one line on standard output, at once.

    Raises:
        InputError: standard output is closed.
    """
    print_line(json_line(record))


def print_line(text: str) -> None:
    """Print one line of data on standard output, at once.

    Raises:
        InputError: standard output is closed.
    """
    if sys.stdout is None:
        raise InputError("standard output is closed, expected a place for JSON lines: redirect it to a file")
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class FaceWriter(Protocol):
    """Where rows of a table of faces go."""

    def write(self, moment: Moment, analysis: Analysis) -> None:
        """Add one row per face, or one without a face for a picture or frame that has none."""
        ...


class _CsvWriter:
    def __init__(self, stream: TextIO, labels: Sequence[str]) -> None:
        self._rows = csv.writer(stream, lineterminator="\n")
        self._labels = labels
        columns = ["source", "frame", "time_s", "face", "track", "x", "y", "width", "height"]
        columns += ["label", "reliability", "abstained"]
        self._rows.writerow(columns + [f"{kind}_{name}" for kind in ("p", "primary") for name in labels])

    def write(self, moment: Moment, analysis: Analysis) -> None:
        # None becomes an empty cell.
        time_s = None if moment.time_s is None else round(moment.time_s, 6)
        start = [moment.source, moment.frame, time_s]
        if not analysis.faces:
            self._rows.writerow([*start, *[None] * (9 + 2 * len(self._labels))])
        for number, face in enumerate(analysis.faces):
            prediction = face.prediction
            box = [None] * 4 if face.box is None else [round(side, 2) for side in face.box]
            label = None if prediction.abstained else prediction.label
            answer = [label, _digits(prediction.reliability), str(prediction.abstained).lower()]
            figures = [*prediction.probabilities.tolist(), *prediction.primary.tolist()]
            self._rows.writerow([*start, number, face.place.track, *box, *answer, *map(_digits, figures)])


class _NoWriter:
    def write(self, moment: Moment, analysis: Analysis) -> None:
        pass


@contextmanager
def open_csv(path: Path | None, labels: Sequence[str], sources: Sequence[Path] = ()) -> Iterator[FaceWriter]:
    """Write faces to a CSV file that appears when the block ends well, and not otherwise.

    Args:
        path: the file, replaced if it is there; None: nothing is written.
        labels: names of the classes.
        sources: files that are read and must not be overwritten.

    Raises:
        InputError: the place cannot be written to, or is a source.
    """
    if path is None:
        yield _NoWriter()
        return
    path = replaceable(path)
    if path.exists() and _identity(path) in {_identity(source) for source in sources}:
        raise InputError(f"{path} is a source and would be overwritten: name another file")
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A file name may hold bytes that are no UTF-8: they go out as they came in.
        stream = temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; name another place") from error
    try:
        with stream:
            yield _CsvWriter(stream, labels)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file that is whole or not there, with the folders above it.

    Raises:
        InputError: the place cannot be written to.
    """
    path = replaceable(path)
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; name another place") from error


def check_place(file: Path) -> None:
    """Refuse a file that nobody could write here, before the work of minutes that it is to hold.

    Raises:
        InputError: the nearest folder above it that is there is none, or is read-only.
    """
    folder = next(parent for parent in file.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise InputError(f"{file} cannot be written: {folder} is a file; name another place")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{file} cannot be written: {folder} is read-only; name another place")


def replaceable(path: Path) -> Path:
    """Return the file that a path means, through links: a rename would replace the link and not the file.

    Raises:
        InputError: a folder, a device or a pipe is there.
    """
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise InputError(f"{path} cannot be written: {error}; name another place") from error
    if target.exists() and not target.is_file():
        raise InputError(f"{path} is not a file that could be replaced: name another")
    return target


def temporary_name(path: Path) -> Path:
    """Return a hidden name beside `path` that nobody else uses."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def plan_outputs(wanted: Mapping[K, str], originals: Sequence[Path], folder: Path) -> dict[K, Path]:
    """Return where each output goes; all names differ, and none is a file that is read.

    Args:
        wanted: for each output the file name that it would like; two sources may have the same.
        originals: the files that are read.
        folder: made if it is not there.

    Raises:
        InputError: the folder cannot be written to, or a source would be overwritten.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made a folder: {error.strerror}; name another place") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{folder} cannot be written to: permission denied; name another place")
    targets = {key: folder / name for key, name in zip(wanted, _distinct(wanted.values()), strict=True)}
    read = {_identity(path) for path in originals}
    for target in targets.values():
        if target.exists() and _identity(target) in read:
            raise InputError(f"{target} is a source and would be overwritten: give --output another folder")
    return targets


def _distinct(names: Iterable[str]) -> Iterator[str]:
    """Make equal file names differ: photo.jpg, photo-2.jpg ..."""
    taken: set[str] = set()
    numbers: dict[str, int] = {}  # the last number tried, so that many equal names cost no more than one
    for plain in names:
        name, path = plain, Path(plain)
        while name.lower() in taken:  # lower: some file systems do not tell the cases apart
            number = numbers[plain.lower()] = numbers.get(plain.lower(), 1) + 1
            name = f"{path.stem}-{number}{path.suffix}"
        taken.add(name.lower())
        yield name


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _face_record(face: FaceResult) -> dict[str, object]:
    prediction = face.prediction
    return {
        "box": None if face.box is None else [round(float(side), 2) for side in face.box],
        "landmarks": None if face.landmarks is None else np.round(face.landmarks.astype(float), 2).tolist(),
        "label": None if prediction.abstained else prediction.label,
        "probabilities": _by_label(prediction.labels, prediction.probabilities),
        "primary": _by_label(prediction.labels, prediction.primary),
        "reliability": _digits(prediction.reliability),
        "abstained": prediction.abstained,
        "track": face.place.track,
    }


def _by_label(labels: Sequence[str], values: NDArray[np.float32]) -> dict[str, float]:
    return dict(zip(labels, map(_digits, values.tolist()), strict=True))


def _digits(value: float) -> float:
    # Seven digits hold what float32 knows; eight rounded classes still sum to 1 within 4e-7.
    return round(value, 7)
