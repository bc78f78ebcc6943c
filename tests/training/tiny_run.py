"""Runs of a tiny network: their recipe, what `train` is asked for, and a run that is stopped half way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pytest

from training.data.augment import AugmentOptions
from training.loop import Trainer
from training.session import TrainOptions, train_run
from training.sweeps.toml_text import toml_text

Table = Mapping[str, object]
TINY: dict[str, Table] = {
    "network": {"model": "grefel-lite-s", "classes": 3, "input_size": 32},
    "optimiser": {"epochs": 2, "batch_size": 24, "learning_rate": 1e-3, "checkpoint_every": 1},
}
UNCHANGED: Table = {field.name: 0.0 for field in fields(AugmentOptions) if field.name != "erase_area"}
"""The table [augment] with which faces stay as they are."""


def tiny_recipe(**tables: Table) -> str:
    """Return the text of a recipe: the tiny one with what these tables add or have otherwise."""
    return toml_text({"name": "tiny"} | TINY | {n: {**TINY.get(n, {}), **t} for n, t in tables.items()})


def tiny_run(folder: Path, data: Path, name: str = "run", /, **tables: Table) -> TrainOptions:
    """Return what `train` is asked for; recipe and run are called `name` and lie in `folder`."""
    recipe = folder / f"{name}.toml"
    recipe.write_text(tiny_recipe(**tables), encoding="utf-8")
    return TrainOptions(recipe_path=recipe, data=str(data), output=folder / name, device="cpu")


def train_until(step: int, options: TrainOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train until the state after this step is saved, and be interrupted there."""
    save = Trainer.save

    def stop(trainer: Trainer) -> None:
        save(trainer)
        if trainer.progress.step == step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "save", stop)
        train_run(options)
