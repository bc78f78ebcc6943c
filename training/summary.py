"""The page about a run for people: what was trained, with what, and how every epoch went."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edge_fer.output import write_text
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
    epochs = [line for line in read_lines(folder.metrics.read_bytes()) if line["kind"] == "validation"]
    best = max(range(len(epochs)), key=lambda i: float(epochs[i]["accuracy"]), default=None)
    lines = [
        f"# {recipe['name']}",
        "",
        describe(origin),
        "",
        f"start: {origin['start'] or 'random weights'}; teachers: {', '.join(origin['teachers']) or 'none'}",
        "",
        *(f"* {line}" for line in environments(folder.environment.read_bytes())),
        "",
        f"| epoch | {' | '.join(FIGURES.values())} |",
        "|---" * (len(FIGURES) + 1) + "|",
        *(row(line, best=number == best) for number, line in enumerate(epochs)),
        "",
        NOTE,
    ]
    write_text(folder.summary, "\n".join(lines) + "\n")


def describe(origin: Mapping[str, Any]) -> str:
    """Return in words what is trained on what."""
    recipe = origin["recipe"]
    return (
        f"{recipe['network']['model']}, method {recipe['method']['name']}, "
        f"seed {recipe['optimiser']['seed']}, data {origin['data']}"
    )


def environments(content: bytes) -> list[str]:
    """Return a line for each time the run was started or resumed."""
    return [
        f"commit {line['commit'] or 'unknown'}, torch {line['torch']}, {line['cpu'] or 'unknown processor'}, "
        f"device {line['device']}, {line['processes']} x {line['threads']} threads, {line['precision']}"
        for line in read_lines(content)
    ]


def row(line: Mapping[str, Any], *, best: bool) -> str:
    """Return one epoch as a row of the table."""
    cells = [f"{float(line[name]):.4f}" for name in FIGURES]
    return f"| {line['epoch']}{' (best)' if best else ''} | {' | '.join(cells)} |"


def read_lines(content: bytes) -> list[dict[str, Any]]:
    """Return the JSON objects of a file of lines."""
    return [json.loads(line) for line in content.splitlines()]
