"""What came out of one run: its figures at the last and at the best epoch, kept beside the run as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from edge_fer.errors import TrainingError
from edge_fer.output import write_text
from edge_fer.parity import metrics
from training.data.faces import load_faces
from training.data.labelled import split_data
from training.evaluation import normalise
from training.models.checkpoint import load_checkpoint
from training.run import RunFolder
from training.summary import environments, read_lines
from training.sweeps.figures import EPOCHS, FRACTIONS, PARAMETERS, PERCENT

Figures = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A finished run, or one that failed.

    Attributes:
        last: figures of the last epoch, by name; fractions.
        best: those of the epoch with the highest validation accuracy.
        faces: training faces seen, each time counted.
        minutes: of training, without validation.
        machine: processor or GPU, threads, versions.
        failed: the one line that says why it failed; "" where it did not.
    """

    last: Figures = field(default_factory=dict)
    best: Figures = field(default_factory=dict)
    faces: int = 0
    minutes: float = 0.0
    machine: str = ""
    failed: str = ""

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        write_text(path, json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")

    def check(self) -> None:
        """Refuse what no run has left.

        Raises:
            AttributeError, TypeError: values of another kind, or figures are missing.
        """
        numbers = (*self.last.values(), *self.best.values(), self.faces, self.minutes)
        sound = all(type(number) in (int, float) for number in numbers)
        sound &= all(type(text) is str for text in (self.machine, self.failed))
        if not sound or not (self.failed or {EPOCHS, PARAMETERS} <= self.last.keys()):
            raise TypeError("other values than a run has")

    @classmethod
    def read(cls, path: Path) -> Outcome | None:
        """Return what was written there, None where nothing was.

        Raises:
            TrainingError: something else is there.
        """
        try:
            outcome = cls(**json.loads(path.read_text(encoding="utf-8")))
            outcome.check()
            return outcome
        except FileNotFoundError:
            return None
        except (AttributeError, OSError, RecursionError, TypeError, ValueError) as error:
            raise TrainingError(
                f"{path}: expected the outcome of a run, could not read it ({error}); remove the file"
            ) from error


def collect(folder: RunFolder, data: str, *, recalls: bool) -> Outcome:
    """Read what a finished run left: figures of the validation faces at its last and at its best epoch.

    Accuracies, F1, ECE and NLL are those the run validated with, before the temperature its checkpoints hold.

    Args:
        folder: of the run.
        data: the DATA it was trained on.
        recalls: whether the recall of every class is wanted, for which the checkpoints are run again.
    """
    epochs = [line for line in read_lines(folder.metrics) if line["kind"] == "validation"]
    best = max(epochs, key=lambda line: float(line["accuracy"]))  # the first of equals, as the run keeps it
    origin = json.loads(folder.recipe.read_text(encoding="utf-8"))
    batch_size = int(origin["recipe"]["optimiser"]["batch_size"])
    saved = folder.load_state(write=False)
    return Outcome(
        last=figures_of(epochs[-1], batch_size) | read_checkpoint(folder.last, data, recalls=recalls),
        best=figures_of(best, batch_size) | read_checkpoint(folder.best, data, recalls=recalls),
        faces=int(epochs[-1]["step"]) * batch_size,
        minutes=0.0 if saved is None else saved[1].seconds / 60.0,
        machine="; ".join(dict.fromkeys(environments(folder.environment))),
    )


def figures_of(line: Mapping[str, Any], batch_size: int) -> Figures:
    """Return the figures of a line of validation, whose `faces` are those of a whole epoch."""
    figures = {name: float(line[name]) for name in (*PERCENT, *FRACTIONS)}
    if not figures["anchors_used"]:  # a head without anchors
        del figures["anchors_used"]
    return {**figures, EPOCHS: float(line["step"]) * batch_size / float(line["faces"])}


@torch.inference_mode()
def read_checkpoint(path: Path, data: str, *, recalls: bool) -> Figures:
    """Return how many parameters a checkpoint has and, if asked, its recall of every class."""
    checkpoint = load_checkpoint(path)
    network, labels = checkpoint.network.eval(), checkpoint.network.spec.labels
    figures = {PARAMETERS: float(sum(parameter.numel() for parameter in network.parameters()))}
    if not recalls:
        return figures
    faces = load_faces(split_data(data)[1], checkpoint.crop, labels)
    answers = [network(normalise(part, network)).probabilities for part in faces.crops.split(256)]
    recall = metrics.recall_per_class(torch.cat(answers).numpy(), faces.labels.numpy())
    return figures | {f"recall.{label}": float(r) for label, r in zip(labels, recall, strict=True)}
