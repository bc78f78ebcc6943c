"""Runs that start from a checkpoint's weights: what they take from it, what they refuse, how they go on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from edge_fer.errors import TrainingError
from edge_fer.preprocess import CropSpec
from training.models import ExpressionNetwork, build
from training.models.checkpoint import load_checkpoint, save_checkpoint
from training.session import TrainOptions, train_run

# Rates too low to move a weight: what is left at the end is what the run began with.
RECIPE = """
name = "tiny"
[network]
model = "grefel-lite"
classes = {classes}
input_size = 32
[optimiser]
epochs = 1
batch_size = 8
learning_rate = 1e-30
weight_decay = 0.0
average = {average}
[method]
warmup_epochs = {warmup_epochs}
"""


def write_recipe(folder: Path, *, classes: int = 3, average: float = 0.0, warmup_epochs: int = 1) -> Path:
    path = folder / "tiny.toml"
    path.write_text(
        RECIPE.format(classes=classes, average=average, warmup_epochs=warmup_epochs), encoding="utf-8"
    )
    return path


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
    recipe, output = write_recipe(tmp_path, average=average), tmp_path / "run"
    train_run(
        TrainOptions(
            recipe_path=recipe, data=str(noise_data), output=output, device="cpu", resume=False, start=first
        )
    )
    last = load_checkpoint(output / "last.safetensors")
    for (name, begun), ended in zip(network.named_parameters(), last.network.parameters(), strict=True):
        torch.testing.assert_close(ended, begun, rtol=1e-6, atol=1e-7, msg=name)
    digest = load_checkpoint(first).sha256
    assert last.info["start"] == digest
    assert json.loads((output / "recipe.json").read_text(encoding="utf-8"))["start"] == digest


@pytest.mark.parametrize("begun", [True, False])
def test_anchors_of_the_checkpoint_stay_without_warm_up(
    begun: bool, tmp_path: Path, noise_data: Path, started: tuple[Path, ExpressionNetwork]
) -> None:
    first, network = started
    recipe, output = write_recipe(tmp_path, warmup_epochs=0), tmp_path / "run"
    train_run(
        TrainOptions(
            recipe_path=recipe,
            data=str(noise_data),
            output=output,
            device="cpu",
            resume=False,
            start=first if begun else None,
        )
    )
    name = "head.anchor_correction.anchors"
    ended = load_checkpoint(output / "last.safetensors").network.state_dict()[name]
    torch.manual_seed(0)
    random = build("grefel-lite", classes=3, input_size=32)
    before = (network if begun else random).state_dict()[name]
    assert torch.allclose(ended, before, rtol=1e-6, atol=1e-7) == begun


def test_a_run_from_random_weights_names_no_start(tmp_path: Path, noise_data: Path) -> None:
    output = tmp_path / "run"
    train_run(
        TrainOptions(
            recipe_path=write_recipe(tmp_path),
            data=str(noise_data),
            output=output,
            device="cpu",
            resume=False,
        )
    )
    assert load_checkpoint(output / "last.safetensors").info["start"] is None


def test_a_run_goes_on_with_its_own_start_only(
    tmp_path: Path, noise_data: Path, started: tuple[Path, ExpressionNetwork]
) -> None:
    first, _ = started
    recipe, output = write_recipe(tmp_path), tmp_path / "run"

    def run(start: Path | None, *, resume: bool) -> None:
        train_run(
            TrainOptions(
                recipe_path=recipe,
                data=str(noise_data),
                output=output,
                device="cpu",
                resume=resume,
                start=start,
            )
        )

    run(first, resume=False)
    with pytest.raises(TrainingError, match="another recipe, data, --start or --teacher"):
        run(None, resume=True)
    run(first, resume=True)


def test_weights_of_another_network_are_refused(
    tmp_path: Path, noise_data: Path, started: tuple[Path, ExpressionNetwork]
) -> None:
    first, _ = started
    recipe, output = write_recipe(tmp_path, classes=2), tmp_path / "run"
    with pytest.raises(TrainingError, match="expected weights of the recipe's network grefel-lite") as error:
        train_run(
            TrainOptions(
                recipe_path=recipe,
                data=str(noise_data),
                output=output,
                device="cpu",
                resume=False,
                start=first,
            )
        )
    assert "\n" not in str(error.value)
    assert not output.exists()
