"""What export starts from: untrained networks whose answers an engine can get wrong."""

from __future__ import annotations

import pytest
import torch

from export.reference import TorchAnswers
from export.source import read_source

from .conftest import pictures


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_an_untrained_network_tells_pictures_apart(name: str) -> None:
    network = read_source(name).network
    answers = TorchAnswers(network)(pictures(network.spec.input_size)).probabilities
    assert answers.std(axis=0).max() > 0.01  # a thousand times what rounding moves
    assert not network.training


def test_an_untrained_network_is_the_same_every_time_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, second = (read_source("grefel-lite-s").network.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), state)
