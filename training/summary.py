"""The page about a run for people: what was trained, with what, and how every epoch went."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_fer.errors import TrainingError
from training.models.checkpoint import replace_file
from training.run import RunFolder

FIGURES = {
    "accuracy": "accuracy",
    "primary_accuracy": "primary",
    "mean_recall": "mean recall",
    "macro_f1": "macro F1",
    "ece": "ECE",
    "nll": "NLL",
    "temperature": "T",
}


NOTE = (
    "ECE and NLL are those before the temperature T, which the checkpoints hold. The last and the best epoch "
    "(by accuracy on the validation faces, marked) are different checkpoints: `last.safetensors` and "
    "`best.safetensors`."
)


def write_summary(folder: RunFolder) -> None:
    """Write `summary.md` from the recipe, the environment and the metrics of a run."""
    origin = json.loads(folder.recipe.read_text(encoding="utf-8"))
    recipe = origin["recipe"]
    epochs = [line for line in read_lines(folder.metrics) if line["kind"] == "validation"]
    best = max(range(len(epochs)), key=lambda i: float(epochs[i]["accuracy"]), default=None)
    lines = [
        f"# {recipe['name']}",
        "",
        describe(origin),
        "",
        f"start: {origin['start'] or 'random weights'}; teachers: {', '.join(origin['teachers']) or 'none'}",
        "",
        *(f"* {line}" for line in environments(folder.environment)),
        "",
        f"| epoch | {' | '.join(FIGURES.values())} |",
        "|---" * (len(FIGURES) + 1) + "|",
        *(row(line, best=number == best) for number, line in enumerate(epochs)),
        "",
        NOTE,
    ]
    replace_file(folder.summary, ("\n".join(lines) + "\n").encode())


def describe(origin: Mapping[str, Any]) -> str:
    """Return in words what is trained on what."""
    recipe = origin["recipe"]
    return (
        f"{recipe['network']['model']}, method {recipe['method']['name']}, "
        f"seed {recipe['optimiser']['seed']}, data {origin['data']}"
    )


def environments(path: Path) -> list[str]:
    """Return a line for each time the run was started or resumed."""
    return [
        f"commit {line['commit'] or 'unknown'}, torch {line['torch']}, {line['cpu'] or 'unknown processor'}, "
        f"device {line['device']}, {line['processes']} x {line['threads']} threads, {line['precision']}"
        for line in read_lines(path)
    ]


def row(line: Mapping[str, Any], *, best: bool) -> str:
    """Return one epoch as a row of the table."""
    cells = [f"{float(line[name]):.4f}" for name in FIGURES]
    return f"| {line['epoch']}{' (best)' if best else ''} | {' | '.join(cells)} |"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a file of lines.

    Raises:
        TrainingError: unreadable, or lines of something else.
    """
    try:
        return [dict(json.loads(line)) for line in path.read_bytes().splitlines()]
    except (OSError, TypeError, ValueError) as error:
        raise TrainingError(
            f"{path}: expected lines of JSON as a run writes them, got: {error}; train into another --output"
        ) from error
