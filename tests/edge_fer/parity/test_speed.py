"""Faster, or size only: at the threshold, with noise, with few turns, and by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from edge_fer.parity.gates import Gate, Thresholds
from edge_fer.parity.intervals import Bootstrap
from edge_fer.parity.speed import latency_figures, speed_gate

LIMITS = Thresholds()


def turns(
    ratio: float, count: int = 96, noise: float = 0.05, seed: int = 0
) -> tuple[NDArray[np.float64], ...]:
    generator = np.random.default_rng(seed)
    graph, beside = (np.exp(generator.normal(0, noise, count)) for _ in range(2))
    return graph * 5.0, beside * 5.0 * ratio


def test_a_graph_well_above_the_threshold_passes() -> None:
    graph, beside = turns(2.0)
    gate = speed_gate(graph, beside, LIMITS)
    assert (gate.name, gate.verdict, gate.threshold) == ("speed", "passed", 1.2)
    assert gate.value == pytest.approx(np.median(beside) / np.median(graph))
    assert gate.interval is not None and gate.value is not None
    assert 1.2 <= gate.interval[0] < gate.value < gate.interval[1]
    assert gate.reason.endswith("medians of 96 turns")


@pytest.mark.parametrize("ratio", [1.2, 1.0, 0.5])
def test_a_graph_not_shown_to_be_faster_is_size_only_and_never_failed(ratio: float) -> None:
    gate = speed_gate(*turns(ratio), LIMITS)
    assert gate.verdict == "size only"
    assert "this graph saves size only" in gate.reason


def test_the_verdict_follows_from_the_lower_bound() -> None:
    found = [speed_gate(*turns(1.25, count, 0.1, seed), LIMITS) for count in (6, 30, 96) for seed in range(4)]
    for gate in found:
        assert gate.interval is not None
        assert gate.verdict == ("passed" if gate.interval[0] >= 1.2 else "size only")
    assert {gate.verdict for gate in found} == {"passed", "size only"}


def test_a_turn_that_stalls_does_not_matter() -> None:
    graph, beside = turns(2.0)
    graph[10:14] *= 50
    assert speed_gate(graph, beside, LIMITS).verdict == "passed"


def test_few_turns_prove_nothing() -> None:
    """The smallest of five times is a lower bound of the median at 1 - 1/32, of four at 1 - 1/16 only."""
    found = [speed_gate(np.ones(count), np.full(count, 9.0), LIMITS) for count in range(1, 7)]
    assert [gate.verdict for gate in found] == ["size only"] * 4 + ["passed"] * 2
    assert found[0].interval == (0.0, float("inf"))
    assert found[0].to_json()["interval"] == [0.0, None]


def test_bounds_of_a_median_are_its_order_statistics() -> None:
    """Against a float graph of constant time the ratio is one over the median of the graph's times."""
    graph = np.sort(np.random.default_rng(3).uniform(1, 2, 41))
    gate = speed_gate(graph, np.ones(41), Thresholds(resamples=20_000))
    assert gate.interval is not None
    rank = int(np.flatnonzero(binom(41, 0.5).cdf(np.arange(42)) > 0.05)[0])  # 95 % bound of the median
    assert 1 / gate.interval[1] == pytest.approx(graph[rank - 1], abs=graph[rank] - graph[rank - 1])
    assert 1 / gate.interval[0] == pytest.approx(graph[-rank], abs=graph[-rank] - graph[-rank - 1])


def weighted_median(times: list[float], weights: list[float]) -> float:
    """The first time at which half of the weight is reached."""
    total = 0.0
    for time, weight in sorted(zip(times, weights, strict=True)):
        total += weight
        if total >= 0.5:
            return time
    raise AssertionError


def test_interval_by_brute_force_on_the_same_resamples() -> None:
    graph, beside = turns(1.5, 9, 0.3)
    lower, upper = [], []
    for weights in Bootstrap(resamples=200, seed=4).weights(10):
        slow, fast = (weighted_median([*graph, unseen], weights.tolist()) for unseen in (np.inf, 0.0))
        float_slow, float_fast = (
            weighted_median([*beside, unseen], weights.tolist()) for unseen in (np.inf, 0.0)
        )
        lower.append(float_fast / slow)
        upper.append(fast / float_slow)
    found = speed_gate(graph, beside, Thresholds(resamples=200, seed=4)).interval
    expected = np.quantile(lower, 0.05, method="hazen"), 1 / np.quantile(upper, 0.05, method="hazen")
    assert found == pytest.approx(expected, rel=1e-9)


def test_latency_figures_name_the_percentiles_of_both() -> None:
    graph, beside = turns(2.0)
    found = latency_figures(graph, beside, speed_gate(graph, beside, Thresholds()), 2)
    assert list(found) == [
        "p50",
        "p90",
        "p99",
        "fp32_p50",
        "fp32_p90",
        "fp32_p99",
        "ratio",
        "verdict",
        "threads",
    ]
    assert [found["p50"], found["p90"], found["p99"]] == np.quantile(graph, [0.5, 0.9, 0.99]).tolist()
    assert [found["fp32_p50"], found["fp32_p99"]] == np.quantile(beside, [0.5, 0.99]).tolist()
    assert found["ratio"] == pytest.approx(np.median(beside) / np.median(graph))
    assert (found["verdict"], found["threads"]) == ("faster", 2)
    slow = turns(1.0)
    assert latency_figures(*slow, speed_gate(*slow, Thresholds()), None)["verdict"] == "size only"
    strict = speed_gate(graph, beside, Thresholds(speed_ratio=3.0))
    assert latency_figures(graph, beside, strict, 2)["verdict"] == "size only"


def test_same_times_give_the_same_gate() -> None:
    assert speed_gate(*turns(1.3), LIMITS) == speed_gate(*turns(1.3), LIMITS)


def test_no_turns_are_not_run() -> None:
    gate: Gate = speed_gate(np.array([]), np.array([]), LIMITS)
    assert gate.verdict == "not run"


@pytest.mark.parametrize(
    ("graph", "beside"), [([1.0, 2.0], [1.0]), ([0.0], [1.0]), ([1.0], [-1.0]), ([float("nan")], [1.0])]
)
def test_times_that_are_none_are_refused(graph: list[float], beside: list[float]) -> None:
    with pytest.raises(ValueError, match="expected positive times of the same turns"):
        speed_gate(np.array(graph), np.array(beside), LIMITS)
