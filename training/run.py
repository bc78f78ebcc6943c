"""The run folder: recipe, metrics as JSON lines, resumable state and the two checkpoints of a run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save

from edge_fer.errors import TrainingError
from training.methods.distillation import Lessons
from training.models.checkpoint import read_safetensors, replace_file
from training.options import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run stands: the next batch to train is `batch` of `epoch`; `step` optimiser steps are done.

    `seconds` is the time spent on them, without validation.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best_accuracy: float = -1.0
    best_epoch: int = -1
    metric_lines: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a run is made from: recipe, data, and the SHA-256 of first weights and of teachers, if any."""

    recipe: Recipe
    data: str
    start: str | None = None
    teachers: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return the content of recipe.json: the recipe stands there with all its defaults."""
        values = {
            "recipe": self.recipe.to_json(),
            "data": self.data,
            "start": self.start,
            "teachers": self.teachers,
        }
        return json.dumps(values, indent=1, sort_keys=True)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make a folder, if it is not there, and keep other processes out that ask so, however this one ends.

    Raises:
        TrainingError: it cannot be made, or another process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be made: {error.strerror}; name another --output") from error
    if sys.platform == "win32":  # locks no folder
        yield
        return
    import fcntl

    place = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(
                f"{folder}: another process is at work here; wait for its end, or name another --output"
            ) from error
        except OSError:
            pass  # a file system of a network, some of which lock no folder
        yield
    finally:
        os.close(place)  # which unlocks it


class RunFolder:
    """Paths and atomic writes of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = path / "metrics.jsonl"
        self.state = path / "state.safetensors"
        self.recipe = path / "recipe.json"
        self.environment = path / "environment.jsonl"
        self.summary = path / "summary.md"
        self.lessons = path / "lessons.safetensors"
        self.best = path / "best.safetensors"
        self.last = path / "last.safetensors"

    def start(self, origin: Origin) -> None:
        """Create the folder and write into it what is trained."""
        replace_file(self.recipe, origin.describe().encode())

    def note_environment(self, values: Mapping[str, object]) -> None:
        """Add one line about code and machine: one for the start and one for each time the run is resumed."""
        before = self.environment.read_bytes() if self.environment.is_file() else b""
        replace_file(self.environment, before + json.dumps(values, sort_keys=True).encode() + b"\n")

    def check(self, origin: Origin, *, resume: bool) -> None:
        """Check that a run can start here, or with `resume` that the folder holds this very run.

        Raises:
            TrainingError: the folder holds something and `resume` is off, holds another recipe, or no run; it
                is none, or it or the data have a name that is no text.
        """
        for name in (str(self.path), origin.data):
            if any("\ud800" <= letter <= "\udfff" for letter in name):  # bytes that are no text
                raise TrainingError(f"{name}: expected a name in UTF-8, got other bytes; rename it")
        if os.path.lexists(self.path) and not self.path.is_dir():
            raise TrainingError(
                f"{self.path}: expected a new or empty folder, got something else; name another --output"
            )
        if not resume:
            if self.path.is_dir() and set(self.path.iterdir()) - self.leftovers():
                raise TrainingError(
                    f"{self.path}: expected a new or empty folder; pass --resume to go on with this run"
                )
            return
        if not self.recipe.is_file():
            raise TrainingError(
                f"{self.path}: expected a run to resume, found none; leave --resume out to start one"
            )
        if self.recipe.read_bytes() != origin.describe().encode():
            raise TrainingError(
                f"{self.path}: this run began with another recipe, data, --start or --teacher; "
                "use another --output"
            )

    def expect(self, *files: Path) -> None:
        """Refuse a folder that lacks one of these files.

        Raises:
            TrainingError: it does.
        """
        for file in files:
            if not file.is_file():
                raise TrainingError(f"{file}: expected a file of this run, found none; use another --output")

    def leftovers(self) -> set[Path]:
        """Return what a kill in the middle of a write left."""
        return set(self.path.glob(".*.part"))

    def append(self, progress: Progress, record: Mapping[str, object]) -> Progress:
        """Write one line of metrics; return the progress that counts it."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())  # the state that counts this line is, too
        return replace(progress, metric_lines=progress.metric_lines + 1)

    def save_state(self, tensors: Mapping[str, torch.Tensor], progress: Progress) -> None:
        """Write the resumable state as one file: a kill at any moment leaves the old or the new one."""
        values = {name: getattr(progress, name) for name in progress.__slots__}
        flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        replace_file(self.state, save(flat, metadata={"progress": json.dumps(values)}))

    def save_lessons(self, lessons: Lessons) -> None:
        """Write the teachers' answers, which take minutes to compute."""
        replace_file(self.lessons, save({name: getattr(lessons, name) for name in lessons.__slots__}))

    def load_lessons(self, faces: int) -> Lessons | None:
        """Return the teachers' answers on so many faces that were written here; None where there are none.

        Raises:
            CheckpointError: they are damaged.
            TrainingError: they are of other faces.
        """
        if not self.lessons.is_file():
            return None
        tensors, _ = read_safetensors(self.lessons)
        if {*tensors} != {*Lessons.__slots__} or any(len(tensor) != faces for tensor in tensors.values()):
            raise TrainingError(
                f"{self.lessons}: expected what the teachers said of the {faces} training faces, got "
                "something else; put the data back as they were, or train into another --output"
            )
        return Lessons(**tensors)

    def load_state(self, *, write: bool = True) -> tuple[dict[str, torch.Tensor], Progress] | None:
        """Return the saved state and cut the metrics back to it; None when no state was saved yet.

        Only one of several processes may `write`.

        Raises:
            TrainingError: the state was not written by this program, or something of the run is missing.
            CheckpointError: the state is damaged.
        """
        if write:
            for part in self.leftovers():
                part.unlink()
        if not self.state.is_file():
            if self.last.is_file():
                self.expect(self.state)  # which was written before it
            if write:
                self.metrics.unlink(missing_ok=True)
            return None
        tensors, header = read_safetensors(self.state)
        try:
            progress = Progress(**json.loads(header["progress"]))
            if not all(isinstance(getattr(progress, name), int | float) for name in progress.__slots__):
                raise TypeError("expected numbers")
        except (KeyError, TypeError, ValueError) as error:
            raise TrainingError(
                f"{self.state}: expected where the run stands, could not read it ({error}); "
                "train into another --output"
            ) from error
        if progress.best_epoch >= 0:
            self.expect(self.best, self.last)
        if not write:
            return tensors, progress
        lines = self.metrics.read_bytes().splitlines(keepends=True) if self.metrics.is_file() else []
        if len(lines) < progress.metric_lines:
            raise TrainingError(
                f"{self.metrics}: expected the {progress.metric_lines} lines that the run has written, got "
                f"{len(lines)}; train into another --output"
            )
        replace_file(self.metrics, b"".join(lines[: progress.metric_lines]))
        return tensors, progress
