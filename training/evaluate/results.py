"""What is evaluated and what came out of it: the checkpoints of a run or one file, and their answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_fer.errors import CheckpointError, InputError
from training.evaluate.answers import Answers
from training.evaluate.faces import LabelledFaces
from training.evaluate.figures import Values
from training.evaluate.projection import Projection
from training.models import ExpressionNetwork
from training.models.checkpoint import Checkpoint, load_checkpoint
from training.run import RunFolder


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A checkpoint to evaluate; `name` is best or last in a run, checkpoint for a file alone."""

    name: str
    path: Path
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """A checkpoint with its answers to the faces, its figures and its embeddings in the plane."""

    source: Source
    faces: LabelledFaces
    answers: Answers
    figures: Values
    projection: Projection | None

    @property
    def name(self) -> str:
        """Best, last or checkpoint."""
        return self.source.name

    @property
    def network(self) -> ExpressionNetwork:
        """The network in eval mode."""
        return self.source.checkpoint.network

    @property
    def balanced(self) -> bool:
        """Whether the head corrects `primary`: by anchors, by attention or by both."""
        return bool((self.answers.correction_weight > 0).any())


def open_sources(path: Path) -> tuple[Source, ...]:
    """Load what a path names: the best and the last checkpoint of a run folder, or one file.

    Raises:
        InputError: there is nothing, or a folder without the two checkpoints.
        CheckpointError: damaged, foreign, or the two are not of one network.
    """
    if not path.exists():
        raise InputError(
            f"{path}: no such run or checkpoint; give the folder of a run or a .safetensors file"
        )
    if not path.is_dir():
        return (Source("checkpoint", path, load_checkpoint(path)),)
    folder = RunFolder(path)
    missing = [file.name for file in (folder.best, folder.last) if not file.is_file()]
    if missing:
        raise InputError(
            f"{path}: expected the folder of a run with best.safetensors and last.safetensors, got none of "
            f"{', '.join(missing)}; a run writes them after its first epoch"
        )
    found = tuple(
        Source(name, file, load_checkpoint(file))
        for name, file in (("best", folder.best), ("last", folder.last))
    )
    first, second = ((one.checkpoint.network.spec.labels, one.checkpoint.crop) for one in found)
    if first != second:
        raise CheckpointError(
            f"{path}: best and last have other labels or crops, so they are not of one run; give one file"
        )
    return found
