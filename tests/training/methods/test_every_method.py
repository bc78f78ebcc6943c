"""What holds of every method: a run that is stopped and resumed is the same, and its checkpoint infers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.tiny_run import tiny_run, train_until
from training.methods import METHODS
from training.models.checkpoint import load_checkpoint
from training.session import train_run


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_run_stopped_anywhere_is_the_same_when_resumed(
    name: str, tmp_path: Path, noise_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {
        "optimiser": {"average": 0.9},
        "data": {"valence_arousal": "prototypes"} | ({"sampler": "balanced"} if name == "dmue" else {}),
        "method": {"name": name},
    }
    whole, broken = (tiny_run(tmp_path, noise_data, part, **tables) for part in ("whole", "broken"))
    train_run(whole)
    train_until(4, broken, monkeypatch)  # in the second of two epochs
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
