"""The moving average of the weights against NumPy, and that a run validates and keeps it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.training.tiny_run import tiny_run
from training.averaging import WeightAverage
from training.data.faces import load_faces
from training.evaluation import evaluate
from training.loop import Trainer
from training.models import ExpressionNetwork, build, calibrated
from training.models.balancing import ReliabilityBalancing
from training.models.checkpoint import load_checkpoint
from training.session import train_run


def shifted(network: ExpressionNetwork, by: float) -> None:
    """Add `by` to every weight and statistic, and 1 to every counter."""
    for tensor in network.state_dict().values():
        tensor.add_(by if tensor.is_floating_point() else 1)


@pytest.mark.parametrize("decay", [0.05, 0.15, 0.9])
def test_the_average_is_the_exponential_one_with_a_fast_start(decay: float) -> None:
    network = build("grefel-lite", classes=3, input_size=32)
    average = WeightAverage(network, decay)
    name = "encoder.stem.1.running_mean"
    expected = network.state_dict()[name].double().numpy().copy()
    for step in range(4):
        shifted(network, 1.0 + step)
        average.update(network, step)
        kept = min(decay, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * network.state_dict()[name].double().numpy()
    np.testing.assert_allclose(average.network.state_dict()[name].numpy(), expected, rtol=1e-6)
    counter = "encoder.stem.1.num_batches_tracked"
    assert int(average.network.state_dict()[counter]) == int(network.state_dict()[counter]) == 4


def test_the_average_is_a_network_of_its_own_in_eval_mode() -> None:
    network = build("grefel-lite", classes=3, input_size=32).train()
    average = WeightAverage(network, 0.9)
    before = {name: tensor.clone() for name, tensor in average.network.state_dict().items()}
    shifted(network, 3.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in average.network.state_dict().items())
    assert not any(module.training for module in average.network.modules())
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
    average.restart(network)
    current = network.state_dict()
    assert all(torch.equal(tensor, current[name]) for name, tensor in average.network.state_dict().items())


def test_a_run_validates_and_keeps_the_average(
    tmp_path: Path, noise_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, step = set(), Trainer.train_step

    def watched(trainer: Trainer, *arguments: Any) -> tuple[float, torch.Tensor]:
        head = trainer.network.head
        assert isinstance(head, ReliabilityBalancing)
        trained.add(head.anchor_correction.delta)
        return step(trainer, *arguments)

    monkeypatch.setattr(Trainer, "train_step", watched)
    optimiser = {"batch_size": 8, "average": 0.9}
    run = tiny_run(tmp_path, noise_data, optimiser=optimiser, method={"training_delta": 3.5})
    train_run(run)
    output = run.output
    state, last = load_file(output / "state.safetensors"), load_file(output / "last.safetensors")
    different = 0
    for name, tensor in last.items():
        assert torch.equal(tensor, state[f"average.{name}"]), name
        different += not torch.equal(tensor, state[f"model.{name}"])
    assert different > 0.8 * len(last)
    lines = (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    validation = [line for line in map(json.loads, lines) if line["kind"] == "validation"]
    kept = load_checkpoint(output / "last.safetensors")
    faces = load_faces(str(noise_data / "valid"), kept.crop, 3)
    plain = calibrated(kept.network, 1.0)  # the figures are those before calibration
    figures = asdict(evaluate(plain, faces, torch.device("cpu")))
    assert kept.network.spec.temperature == figures["temperature"] != 1.0
    assert kept.info["validation"] == {name: validation[-1][name] for name in figures}
    assert trained == {3.5} and kept.network.spec.delta == 1.0
    assert figures == pytest.approx(kept.info["validation"], rel=1e-5)
