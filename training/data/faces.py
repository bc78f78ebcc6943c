"""Faces of one split as tensors: read once through the one preprocessing, kept as uint8."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from edge_fer.errors import InputError
from edge_fer.faces import FaceSet, face_hash, label_numbers
from edge_fer.labels import LABELS
from edge_fer.preprocess import CropSpec
from training.data.cache import Crops, cached, decode_all
from training.data.labelled import read_labelled

IN_MEMORY = 2 << 30  # bytes of crops; a larger set of the cache stays a mapped file, and so do parts of it
NAMED = 3  # broken pictures that one line names
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class FaceTensors:
    """N faces of C classes.

    Attributes:
        crops: (N, S, S, 3) uint8 RGB.
        labels: (N,) int64.
        votes: (N, C) float32 or None.
        valence_arousal: (N, 2) float32 in -1..1, NaN where not annotated; None: of no face.
        groups: (N,) int64, which video each is of, from 0; None: no videos.
        folder: where the crops are mapped from; None: they are in memory.
        names: of the C classes.
    """

    crops: torch.Tensor
    labels: torch.Tensor
    votes: torch.Tensor | None
    valence_arousal: torch.Tensor | None = None
    groups: torch.Tensor | None = None
    folder: Path | None = None
    names: tuple[str, ...] = LABELS

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: torch.Tensor) -> FaceTensors:
        """Return the faces of these rows (R,) int64, in this order."""
        if len(rows) == len(self) and torch.equal(rows, torch.arange(len(self))):
            return self
        optional = (self.votes, self.valence_arousal, self.groups)
        votes, valence_arousal, groups = (None if some is None else some[rows] for some in optional)
        crops = self.crops[rows] if self.folder is None else _mapped_rows(self.crops, rows, self.folder)
        return replace(
            self,
            crops=crops,
            labels=self.labels[rows],
            votes=votes,
            valence_arousal=valence_arousal,
            groups=groups,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How faces are loaded.

    Attributes:
        skip_bad: leave pictures out that cannot be read; they are reported.
        cache: folder of decoded crops; None: they are decoded every time.
        in_memory: bytes of crops up to which what the cache holds is read into memory.
        report: is told what was left out, a line each.
        progress: is told how many faces of how many are decoded.
    """

    skip_bad: bool = False
    cache: Path | None = None
    in_memory: int = IN_MEMORY
    report: Callable[[str], None] = lambda line: None
    progress: Callable[[int, int], None] = lambda done, total: None


def load_faces(
    data: str, crop: CropSpec, classes: int | tuple[str, ...], options: LoadOptions | None = None
) -> FaceTensors:
    """Read DATA, as `training.data.labelled.read_labelled` takes it; the rest is that of `load_listed`."""
    return load_listed(read_labelled(data), data, crop, classes, options)


def load_listed(
    faces: FaceSet,
    data: str,
    crop: CropSpec,
    classes: int | tuple[str, ...],
    options: LoadOptions | None = None,
) -> FaceTensors:
    """Read the faces listed of DATA; those of other classes are left out, and counted to `options.report`.

    Args:
        faces: the listing.
        data: how errors call it.
        crop: how a face is cut; only the whole-picture path is used.
        classes: the names of a network's classes, or how many of the set's own are taken.
        options: how.

    Raises:
        InputError: unreadable data, faces without labels, or pictures that cannot be read.
    """
    options = options or LoadOptions()
    unlabelled = sum(face.label is None for face in faces.faces)
    if unlabelled:
        raise InputError(
            f"{data}: expected a label for every face, {unlabelled} have none; training needs labels"
        )
    names = faces.labels[:classes] if isinstance(classes, int) else classes
    numbers = label_numbers(faces, names)
    kept = tuple(face for face, number in zip(faces.faces, numbers, strict=True) if number >= 0)
    if not kept:
        raise InputError(f"{data}: expected faces of the classes {', '.join(names)}, got none")
    note = left_out(faces, names)
    if note:
        options.report(f"{faces.name}: {note}")
    faces = replace(faces, faces=kept)
    loaded = _crops(faces, crop, options)
    mapped = options.cache is not None and loaded.pixels.nbytes > options.in_memory
    pixels = loaded.pixels if mapped or options.cache is None else np.array(loaded.pixels)
    tensors = FaceTensors(
        torch.from_numpy(pixels),
        torch.from_numpy(numbers[numbers >= 0]),
        _votes(faces, names),
        _valence_arousal(faces),
        _groups(faces),
        options.cache if mapped else None,
        names,
    )
    return tensors.take(_sound_rows(data, loaded, options))


def left_out(faces: FaceSet, names: tuple[str, ...]) -> str:
    """Say in words what the set itself and a network of these classes leave out; may be empty."""
    given = [faces.labels[face.label] for face in faces.faces if face.label is not None]
    beyond = Counter(name for name in given if name not in names)
    parts = [faces.note] if faces.note else []
    if beyond:
        parts.append(
            f"{beyond.total()} of {len(faces.faces)} faces left out, of classes that the network does not "
            f"know: {', '.join(f'{name} {count}' for name, count in beyond.items())}"
        )
    return "; ".join(parts)


def drop_duplicates(faces: FaceTensors, *others: FaceTensors) -> FaceTensors:
    """Return `faces` without those whose pixels also occur in one of `others`, or earlier in `faces`."""
    seen = {face_hash(crop) for other in others for crop in other.crops.numpy()}
    keep = []
    for index, crop in enumerate(faces.crops.numpy()):
        digest = face_hash(crop)
        if digest not in seen:
            seen.add(digest)
            keep.append(index)
    return faces.take(torch.tensor(keep, dtype=torch.int64))


def _crops(faces: FaceSet, crop: CropSpec, options: LoadOptions) -> Crops:
    paths = [face.path for face in faces.faces]

    def advance(done: int) -> None:
        options.progress(done, len(paths))

    if options.cache is None:
        return decode_all(paths, crop, advance)
    return cached(paths, crop, options.cache, advance, options.report)


def _sound_rows(data: str, loaded: Crops, options: LoadOptions) -> torch.Tensor:
    bad, count = loaded.bad, len(loaded.pixels)
    if bad and not options.skip_bad:
        first = "; ".join(list(bad.values())[:NAMED])
        raise InputError(
            f"{data}: {len(bad)} of {count} pictures cannot be read ({first}); remove them, or give `train` "
            "--skip-bad"
        )
    if len(bad) == count:
        raise InputError(f"{data}: none of the {count} pictures can be read")
    for reason in bad.values():
        options.report(f"left out: {reason}")
    if bad:
        options.report(f"{data}: {len(bad)} of {count} pictures left out that cannot be read")
    return torch.tensor([row for row in range(count) if row not in bad])


def _votes(faces: FaceSet, names: tuple[str, ...]) -> torch.Tensor | None:
    """Return the votes (N, C) for these classes, none for one that was not asked about; None: of no votes."""
    votes = [face.votes for face in faces.faces if face.votes is not None]
    if len(votes) < len(faces.faces):
        return None
    given = torch.tensor(votes)
    chosen = torch.zeros(len(votes), len(names))
    for place, name in enumerate(names):
        if name in faces.labels:
            chosen[:, place] = given[:, faces.labels.index(name)]
    return chosen


def _valence_arousal(faces: FaceSet) -> torch.Tensor | None:
    if not any("valence" in face.columns for face in faces.faces):
        return None
    values = torch.full((len(faces.faces), 2), torch.nan)
    for row, face in enumerate(faces.faces):
        texts = [face.columns.get(column, "") for column in ("valence", "arousal")]
        if not all(texts):
            continue
        try:
            pair = [float(text) for text in texts]
        except ValueError:
            pair = [torch.nan]
        if not all(-1 <= value <= 1 for value in pair):
            raise InputError(f"{face.path}: expected valence and arousal of -1 to 1, got {', '.join(texts)}")
        values[row] = torch.tensor(pair)
    return values


def _groups(faces: FaceSet) -> torch.Tensor | None:
    videos = [face.columns.get("video", "") for face in faces.faces]
    if not all(videos):
        return None
    numbers = {video: number for number, video in enumerate(sorted(set(videos)))}
    return torch.tensor([numbers[video] for video in videos])


def _mapped_rows(crops: torch.Tensor, rows: torch.Tensor, folder: Path) -> torch.Tensor:
    """Copy rows into a file without a name, which goes when nothing maps it any more."""
    if not len(rows):
        return crops[rows]
    shape = (len(rows), *crops.shape[1:])
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for start in range(0, len(rows), _CHUNK):
                file.write(crops[rows[start : start + _CHUNK]].numpy().tobytes())
            file.flush()
            return torch.from_numpy(np.memmap(file, np.uint8, mode="r+", shape=shape))
    except OSError as error:
        raise InputError(f"{folder}: a part of the faces cannot be written: {error.strerror}") from None
