"""What holds of every method: a run that is stopped and resumed is the same, and its checkpoint infers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from training.loop import Trainer
from training.methods import METHODS
from training.models.checkpoint import load_checkpoint
from training.session import TrainOptions, train_run

RECIPE = """
name = "tiny"
[network]
model = "grefel-lite-s"
classes = 3
input_size = 32
[optimiser]
epochs = 2
batch_size = 24
learning_rate = 1e-3
average = 0.9
checkpoint_every = 1
[data]
valence_arousal = "prototypes"
{data}
[method]
name = "{name}"
"""


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_run_stopped_anywhere_is_the_same_when_resumed(
    name: str, tmp_path: Path, noise_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "recipe.toml"
    data = 'sampler = "balanced"' if name == "dmue" else ""
    recipe.write_text(RECIPE.format(name=name, data=data), encoding="utf-8")
    whole, broken = (
        TrainOptions(recipe_path=recipe, data=str(noise_data), output=tmp_path / part, device="cpu")
        for part in ("whole", "broken")
    )
    train_run(whole)
    save = Trainer.save

    def stop(trainer: Trainer) -> None:
        save(trainer)
        if trainer.progress.step == 4:  # in the second of two epochs
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "save", stop)
        train_run(broken)
    train_run(replace(broken, resume=True))
    for file in ("state", "last", "best"):
        left, right = (load_file(run.output / f"{file}.safetensors") for run in (whole, broken))
        assert left.keys() == right.keys()
        assert [key for key in left if not torch.equal(left[key], right[key])] == [], file
    network = load_checkpoint(whole.output / "last.safetensors").network
    assert network.spec.head == METHODS[name].method.heads[0]
    with torch.inference_mode():
        said = network(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(said.probabilities.sum(dim=1), torch.ones(2))
    assert (said.probabilities is said.primary) == (name != "grefel")
