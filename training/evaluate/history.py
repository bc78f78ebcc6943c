"""The curves of a run: every loss term and every validation figure by step, from its metrics.jsonl."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

from edge_fer.errors import InputError

NO_FIGURES = ("kind", "epoch", "step")


@dataclass(slots=True)
class Curves:
    """The lines of one kind: their epochs and steps, and by name a value in each, NaN where it has none."""

    epochs: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, line: dict[str, object]) -> None:
        """Append the numbers of one line."""
        found = {
            name: float(value)
            for name, value in line.items()
            if name not in NO_FIGURES and isinstance(value, int | float) and not isinstance(value, bool)
        }
        for name in found:
            self.values.setdefault(name, [math.nan] * len(self.steps))
        for name, column in self.values.items():
            column.append(found.get(name, math.nan))
        self.epochs.append(int(str(line["epoch"])))
        self.steps.append(int(str(line["step"])))

    def to_json(self) -> dict[str, object]:
        """Return plain lists."""
        return {"epoch": self.epochs, "step": self.steps, **self.values}


@dataclass(frozen=True, slots=True)
class History:
    """What a run wrote while it trained, and validated after each epoch."""

    train: Curves
    validation: Curves


def read_history(path: Path) -> History | None:
    """Read a metrics.jsonl; None where there is none.

    A last line without an end is left out: the run is writing it, or was killed in it.

    Raises:
        InputError: the file cannot be read, or a line is none of a run.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected the metrics of a run, could not read them ({error})") from error
    history = History(Curves(), Curves())
    kinds = {"train": history.train, "validation": history.validation}
    for number, text in enumerate(lines, 1):
        try:
            line = json.loads(text)
            kinds[line["kind"]].add(line)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}:{number}: expected a line of a run with kind, epoch and step, got {text[:60]!r}"
            ) from error
    return history
