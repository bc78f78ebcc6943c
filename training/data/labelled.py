"""The DATA of training: the official layouts and folds of subjects, beside all that every command reads."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edge_fer.errors import InputError
from edge_fer.faces import FaceSet, read_data
from training.data.folds import fold_rows
from training.data.layouts import LAYOUTS

_FERPLUS = "ferplus"
_SPLITS = ("train", "valid", "test")
_FOLD = re.compile(r"fold([0-9]{1,4})of([0-9]{1,4})")


@dataclass(frozen=True, slots=True)
class Source:
    """What a DATA string names.

    Attributes:
        layout: a key of LAYOUTS; empty for what `edge_fer.faces.read_data` reads.
        place: the folder or file; with an empty layout the whole DATA but for the fold.
        split: train, valid or test; empty when not said.
        fold: which fold, from 1, of how many; None: no folds.
    """

    layout: str
    place: str
    split: str
    fold: tuple[int, int] | None


def parse_source(data: str) -> Source:
    """Return what DATA names: [LAYOUT:]PLACE[:SPLIT] or [LAYOUT:]PLACE:foldIofN[:train|valid].

    Raises:
        InputError: a split that the layout does not have, or an impossible fold.
    """
    layout, colon, place = data.partition(":")
    if not colon or layout not in LAYOUTS:
        layout, place = "", data
    elif not place:
        raise InputError(f"{data}: expected {layout}:DIR")
    head, _, split = place.rpartition(":")
    if not head or split not in _SPLITS:
        head, split = place, ""
    start, _, tail = head.rpartition(":")
    found = _FOLD.fullmatch(tail) if start else None
    if found is None:
        if not layout:
            return Source("", data, "", None)
        known = LAYOUTS[layout].splits
        if split and split not in known:
            has = f"the splits {', '.join(known)}" if known else "no official splits; name a fold"
            raise InputError(f"{data}: {layout} has {has}, got {split!r}")
        return Source(layout, head, split, None)
    fold, folds = int(found[1]), int(found[2])
    if not 1 <= fold <= folds or folds < 2 or split == "test":
        raise InputError(f"{data}: expected foldIofN with 1 <= I <= N, N >= 2, then train or valid")
    if layout and LAYOUTS[layout].splits:
        raise InputError(
            f"{data}: {layout} has official splits and no subjects, expected one of those splits"
        )
    return Source(layout, start, split, (fold, folds))


def read_labelled(data: str) -> FaceSet:
    """List the faces of DATA without decoding them.

    Args:
        data: `rafdb:DIR`, `fer2013:DIR`, `affectnet7:DIR`, `affectnet8:DIR` or `affwild2:DIR` with one of
            their splits behind a colon, else their held-out one; `jaffe:DIR`, `ferg:DIR`, `ckplus:DIR`; or
            what `edge_fer.faces.read_data` takes, of a folder with train/ and valid/ the latter. Of faces
            whose subject is known (the last three, or a CSV with a column `subject`) `:fold3of10:train` and
            `:fold3of10:valid` take the part of a fold.

    Raises:
        InputError: missing, empty or malformed; the text names the file and line.
    """
    source = parse_source(data)
    if source.layout:
        layout = LAYOUTS[source.layout]
        faces = layout.read(Path(source.place), source.split or layout.held_out)
        if not faces.faces:
            why = f"; {faces.note}" if faces.note else ""
            raise InputError(f"{data}: expected at least one labelled face, got none{why}")
    else:
        root = Path(source.place)
        parted = (root / "train").is_dir() and (root / "valid").is_dir()  # as `split_data` has it
        faces = read_data(str(root / "valid") if parted else source.place)
    return faces if source.fold is None else _fold(faces, source.fold, source.split or "valid", data)


def split_data(data: str) -> tuple[str, str]:
    """Return the DATA of the training and of the validation split.

    Raises:
        InputError: DATA names one split already, or has none.
    """
    source = parse_source(data)
    ferplus = data.startswith(f"{_FERPLUS}:")
    if source.split or (ferplus and data.rpartition(":")[2] in _SPLITS):
        raise InputError(f"{data}: expected DATA without a split, which is chosen here; leave it out")
    if source.fold is not None:
        return f"{data}:train", f"{data}:valid"
    if source.layout:
        held_out = LAYOUTS[source.layout].held_out
        if not held_out:
            raise InputError(f"{data}: {source.layout} has no official splits; name a fold: {data}:fold1of5")
        return f"{data}:train", f"{data}:{held_out}"
    if ferplus:
        return f"{data}:train", f"{data}:valid"
    root = Path(data)
    if (root / "train").is_dir() and (root / "valid").is_dir():
        return str(root / "train"), str(root / "valid")
    expected = ", ".join(f"{name}:DIR" for name in (_FERPLUS, *LAYOUTS))
    raise InputError(f"{data}: expected {expected}, or a folder that holds train/ and valid/")


def _fold(faces: FaceSet, place: tuple[int, int], split: str, data: str) -> FaceSet:
    subjects = [face.columns.get("subject", "") for face in faces.faces]
    unknown = sum(not subject for subject in subjects)
    if unknown:
        raise InputError(
            f"{data}: folds need the subject of every face, {unknown} of {len(subjects)} have none; expected "
            "jaffe, ckplus, ferg or a CSV with a column subject"
        )
    fold, folds = place
    train, valid = fold_rows(subjects, fold, folds)
    chosen = tuple(faces.faces[row] for row in (train if split == "train" else valid))
    name = f"{faces.name}:fold{fold}of{folds}:{split}"
    return FaceSet(name, faces.labels, chosen, faces.note)
