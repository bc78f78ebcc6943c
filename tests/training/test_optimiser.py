"""Schedules, groups and sharpness-aware steps against what their definitions say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from training.optimiser import at_sharpest, build_optimiser, kept_statistics, learning_rate, set_rates
from training.options import OptimiserOptions


def test_the_exponential_rate_falls_with_every_epoch() -> None:
    options = OptimiserOptions(epochs=3, learning_rate=2.0, schedule="exponential", gamma=0.5)
    assert [learning_rate(options, step, 12) for step in range(12)] == [2.0] * 4 + [1.0] * 4 + [0.5] * 4


def test_stepped_rates_are_those_of_the_epoch() -> None:
    options = OptimiserOptions(
        epochs=6,
        schedule="steps",
        rates=((0, 1e-1), (2, 1e-2), (5, 1e-1)),
        head_rates=((0, 1.0), (4, 0.5)),
    )
    optimiser = build_optimiser([nn.Parameter(torch.zeros(2, 2))], [nn.Parameter(torch.zeros(2))], options)
    seen = []
    for step in range(6):
        set_rates(optimiser, options, step, 6)
        seen.append([group["lr"] for group in optimiser.param_groups])
    assert seen == [[0.1, 1.0], [0.1, 1.0], [0.01, 1.0], [0.01, 1.0], [0.01, 0.5], [0.1, 0.5]]


def test_the_head_has_a_rate_of_its_own_and_vectors_are_not_decayed() -> None:
    options = OptimiserOptions(epochs=1, learning_rate=0.1, warmup=0.0, head_rate=10.0, weight_decay=0.5)
    network = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))]
    head = [nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3))]
    optimiser = build_optimiser(network, head, options)
    assert set_rates(optimiser, options, 1, 1000) == pytest.approx(0.1, rel=1e-3)
    found = {len(g["params"][0]) * 10 + g["params"][0].ndim: g for g in optimiser.param_groups}
    assert {key: group["weight_decay"] for key, group in found.items()} == {
        22: 0.5,
        21: 0.0,
        32: 0.5,
        31: 0.0,
    }
    assert {key: round(group["lr"], 2) for key, group in found.items()} == {
        22: 0.1,
        21: 0.1,
        32: 1.0,
        31: 1.0,
    }


@pytest.mark.parametrize(
    ("kind", "expected"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_a_kind_is_that_optimiser(kind: str, expected: type[torch.optim.Optimizer]) -> None:
    options = OptimiserOptions(epochs=1, kind=kind, momentum=0.7)
    optimiser = build_optimiser([nn.Parameter(torch.ones(2))], [], options)
    assert type(optimiser) is expected
    assert kind != "sgd" or optimiser.defaults["momentum"] == 0.7


def test_a_sharp_step_takes_the_gradient_at_the_edge_of_the_radius() -> None:
    """For f(w) = sum c w^2 / 2 the gradient is c w, so everything is known in closed form."""
    c, w = np.array([1.0, 5.0, 0.2]), np.array([0.3, -0.4, 2.0])
    parts = [nn.Parameter(torch.tensor(w[:2])), nn.Parameter(torch.tensor(w[2:]))]
    unused = nn.Parameter(torch.ones(1))

    def backward() -> None:
        flat = torch.cat(parts)
        (torch.tensor(c) * flat.square() / 2).sum().backward()

    backward()
    gradient = c * w
    edge = w + 0.05 * gradient / np.linalg.norm(gradient)
    with at_sharpest([*parts, unused], 0.05):
        np.testing.assert_allclose(torch.cat(parts).detach().numpy(), edge, rtol=1e-6)
        backward()
    np.testing.assert_allclose(torch.cat(parts).detach().numpy(), w)
    np.testing.assert_allclose(torch.cat([p.grad for p in parts]).numpy(), c * edge, rtol=1e-6)


def test_statistics_are_kept_in_the_second_pass() -> None:
    norm = nn.BatchNorm1d(3)
    norm(torch.randn(8, 3))
    before = {name: t.clone() for name, t in norm.state_dict().items() if name.startswith("running")}
    with kept_statistics(nn.Sequential(norm)):
        out = norm(torch.randn(8, 3) + 5.0)
    assert all(torch.equal(norm.state_dict()[name], tensor) for name, tensor in before.items())
    torch.testing.assert_close(out.mean(dim=0), torch.zeros(3), atol=1e-5, rtol=0)  # the batch's own
    norm(torch.randn(8, 3))
    assert not torch.equal(norm.running_mean, before["running_mean"])
