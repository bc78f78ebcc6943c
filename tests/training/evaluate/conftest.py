"""Tiny untrained networks as checkpoints, a run of two of them, and one evaluation of that run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import cli
from edge_fer.preprocess import CropSpec
from training.models import build
from training.models.checkpoint import save_checkpoint

LINES = (
    {"kind": "train", "epoch": 0, "step": 4, "total": 1.5, "classification": 1.25, "learning_rate": 0.1},
    {"kind": "validation", "epoch": 0, "step": 8, "accuracy": 0.5, "ece": 0.25, "warnings": ["none"]},
    {"kind": "train", "epoch": 1, "step": 12, "total": 1.0, "classification": float("nan"), "anchor": -0.5},
    {"kind": "validation", "epoch": 1, "step": 16, "accuracy": 0.25, "ece": 0.125},
)


def write_network(path: Path, seed: int, *, head: str = "balanced", size: int = 32, classes: int = 3) -> Path:
    """Write a seeded network whose answers differ from face to face."""
    torch.manual_seed(seed)
    network = build("grefel-lite-s", classes=classes, input_size=size, head=head)
    for name, parameter in network.named_parameters():
        if name.startswith("head.") and name.endswith("weight") and parameter.ndim > 1:
            parameter.data.mul_(6.0)
    save_checkpoint(path, network.eval(), CropSpec(size=size, margin=0.0), {"epoch": seed})
    return path


def evaluate(source: Path, data: object, output: Path, *options: str) -> Result:
    """Run the command."""
    arguments = [str(source), "--data", str(data), "--output", str(output), "--device", "cpu", *options]
    return CliRunner().invoke(cli.app, ["evaluate", *arguments])


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: best of epoch 0, last of epoch 1, and the metrics of both."""
    folder = tmp_path_factory.mktemp("run")
    write_network(folder / "best.safetensors", 0)
    write_network(folder / "last.safetensors", 1)
    lines = "".join(json.dumps(line) + "\n" for line in LINES)
    (folder / "metrics.jsonl").write_text(lines + '{"kind": "tra', encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def evaluated(
    run_folder: Path, noise_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], tuple[Path, Result]]:
    """Return the folder of the run's evaluation and what the command said; made once."""
    output = tmp_path_factory.mktemp("evaluations") / "run"
    done: list[Result] = []

    def made() -> tuple[Path, Result]:
        if not done:
            done.append(evaluate(run_folder, noise_data / "valid", output))
        return output, done[0]

    return made
