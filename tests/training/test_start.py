"""Runs that start from a checkpoint's weights: what they take from it, what they refuse, how they go on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edge_fer.errors import CheckpointError, TrainingError
from edge_fer.preprocess import CropSpec
from tests.training.tiny_run import tiny_run
from training.loop import Trainer
from training.models import ExpressionNetwork, build
from training.models.checkpoint import load_checkpoint, save_checkpoint
from training.session import train_run

# Rates too low to move a weight: what is left at the end is what the run began with.
STILL = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-30, "weight_decay": 0.0}
LITE = {"model": "grefel-lite"}


@pytest.fixture
def started(tmp_path: Path) -> tuple[Path, ExpressionNetwork]:
    """A checkpoint of random weights no recipe's seed gives, and its network."""
    torch.manual_seed(123)
    network = build("grefel-lite", classes=3, input_size=32)
    path = tmp_path / "first.safetensors"
    save_checkpoint(path, network, CropSpec(size=32, margin=0.0), {})
    return path, network


@pytest.mark.parametrize("average", [0.0, 0.999])
def test_a_run_begins_with_the_weights_of_the_checkpoint(
    average: float, tmp_path: Path, noise_data: Path, started: tuple[Path, ExpressionNetwork]
) -> None:
    first, network = started
    run = tiny_run(tmp_path, noise_data, network=LITE, optimiser={**STILL, "average": average})
    train_run(replace(run, start=first))
    last = load_checkpoint(run.output / "last.safetensors")
    for (name, begun), ended in zip(network.named_parameters(), last.network.parameters(), strict=True):
        torch.testing.assert_close(ended, begun, rtol=1e-6, atol=1e-7, msg=name)
    digest = load_checkpoint(first).sha256
    assert last.info["start"] == digest
    assert json.loads((run.output / "recipe.json").read_text(encoding="utf-8"))["start"] == digest


@pytest.mark.parametrize("begun", [True, False])
def test_anchors_of_the_checkpoint_stay_without_warm_up(
    begun: bool, tmp_path: Path, noise_data: Path, started: tuple[Path, ExpressionNetwork]
) -> None:
    first, network = started
    run = tiny_run(tmp_path, noise_data, network=LITE, optimiser=STILL, method={"warmup_epochs": 0})
    train_run(replace(run, start=first if begun else None))
    name = "head.anchor_correction.anchors"
    ended = load_checkpoint(run.output / "last.safetensors").network.state_dict()[name]
    torch.manual_seed(0)
    random = build("grefel-lite", classes=3, input_size=32)
    before = (network if begun else random).state_dict()[name]
    assert torch.allclose(ended, before, rtol=1e-6, atol=1e-7) == begun


def test_a_run_from_random_weights_names_no_start(tmp_path: Path, noise_data: Path) -> None:
    run = tiny_run(tmp_path, noise_data, network=LITE, optimiser=STILL)
    train_run(run)
    assert load_checkpoint(run.output / "last.safetensors").info["start"] is None


def test_a_run_goes_on_with_its_own_start_only(
    tmp_path: Path, noise_data: Path, started: tuple[Path, ExpressionNetwork]
) -> None:
    first, _ = started
    run = replace(tiny_run(tmp_path, noise_data, network=LITE, optimiser=STILL), start=first)
    train_run(run)
    with pytest.raises(TrainingError, match="another recipe, data, --start or --teacher"):
        train_run(replace(run, start=None, resume=True))
    train_run(replace(run, resume=True))


@pytest.mark.parametrize("role", ["start", "teachers"])
def test_weights_that_are_no_numbers_are_refused(
    role: str, tmp_path: Path, noise_data: Path, started: tuple[Path, ExpressionNetwork]
) -> None:
    first, network = started
    next(network.parameters()).data[0] = torch.nan
    save_checkpoint(first, network, CropSpec(size=32, margin=0.0), {})
    share = {"share": 0.5 if role == "teachers" else 0.0}
    run = tiny_run(tmp_path, noise_data, network=LITE, optimiser=STILL, distillation=share)
    given = replace(run, start=first) if role == "start" else replace(run, teachers=(first,))
    with pytest.raises(CheckpointError, match=r"first.safetensors: expected weights that are numbers"):
        train_run(given)
    assert not run.output.exists()


def test_weights_of_another_network_are_refused(
    tmp_path: Path, noise_data: Path, started: tuple[Path, ExpressionNetwork]
) -> None:
    first, _ = started
    run = tiny_run(tmp_path, noise_data, network={**LITE, "classes": 2}, optimiser=STILL)
    with pytest.raises(TrainingError, match="expected weights of the recipe's network grefel-lite") as error:
        train_run(replace(run, start=first))
    assert "\n" not in str(error.value)
    assert not run.output.exists()


def test_dmues_branches_begin_as_the_last_stage_of_the_checkpoint(
    tmp_path: Path, noise_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(123)
    network = build("grefel-lite-s", classes=3, input_size=32, head="linear")
    network(torch.randn(8, 3, 32, 32))  # statistics of its own
    save_checkpoint(tmp_path / "first.safetensors", network, CropSpec(size=32, margin=0.0), {})
    seen: list[Trainer] = []

    def stop(trainer: Trainer, *arguments: object) -> None:
        seen.append(trainer)
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "train_step", stop)
    run = tiny_run(tmp_path, noise_data, data={"sampler": "balanced"}, method={"name": "dmue"})
    with pytest.raises(KeyboardInterrupt):
        train_run(replace(run, start=tmp_path / "first.safetensors"))
    (trainer,) = seen
    assert trainer.progress.step == 0
    last = network.encoder.last.state_dict()
    assert len(trainer.method.branches) == 3
    for branch in trainer.method.branches:
        assert [name for name, t in branch.state_dict().items() if not torch.equal(t, last[name])] == []
