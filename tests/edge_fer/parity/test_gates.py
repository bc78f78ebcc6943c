"""The three-way rule at its edges, the verdict of a report, and a gate as JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fer.parity import gates
from edge_fer.parity.gates import Gate, Thresholds


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((0.99, 1.0), "passed"),  # the bound on the threshold lies inside
        ((0.9899, 1.0), "undecided"),
        ((0.98, 0.99), "undecided"),  # the opposite bound on the threshold does not lie outside
        ((0.98, 0.9899), "failed"),
        ((0.99, 0.99), "passed"),
        ((float("nan"), float("nan")), "undecided"),
    ],
)
def test_at_least_at_its_edges(interval: tuple[float, float], verdict: str) -> None:
    assert gates.at_least(interval, 0.99) == verdict
    mirrored = (-interval[1], -interval[0])
    assert gates.at_most(mirrored, -0.99) == verdict


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((-0.01, 0.01), "passed"),
        ((0.0, 0.0), "passed"),
        ((-0.011, 0.0), "undecided"),
        ((0.0, 0.011), "undecided"),
        ((-0.02, 0.02), "undecided"),
        ((0.01, 0.02), "undecided"),
        ((0.0101, 0.02), "failed"),
        ((-0.02, -0.0101), "failed"),
    ],
)
def test_within_at_its_edges(interval: tuple[float, float], verdict: str) -> None:
    assert gates.within(interval, 0.01) == verdict


@given(bounds=st.tuples(st.floats(-1, 1), st.floats(-1, 1)), threshold=st.floats(0, 1))
def test_within_fails_exactly_when_one_of_its_two_sides_does(
    bounds: tuple[float, float], threshold: float
) -> None:
    lower, upper = sorted(bounds)
    sides = {gates.at_most((lower, upper), threshold), gates.at_least((lower, upper), -threshold)}
    expected = "failed" if "failed" in sides else "passed" if sides == {"passed"} else "undecided"
    assert gates.within((lower, upper), threshold) == expected


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["passed", "not run"], "passed"),
        (["passed", "undecided", "not run"], "undecided"),
        (["passed", "undecided", "failed"], "failed"),
        (["not run", "not run"], "undecided"),
        ([], "undecided"),
        (["passed", "size only"], "passed"),
        (["failed", "size only"], "failed"),
        (["size only", "not run"], "undecided"),
    ],
)
def test_overall(verdicts: list[gates.Verdict], expected: str) -> None:
    assert gates.overall(Gate("flips", None, None, None, verdict, "") for verdict in verdicts) == expected


def test_exact_gates_alone_decide_nothing_but_a_failure() -> None:
    exact = [gates.not_run("flips", "no faces"), Gate("batch", 0, None, 0, "passed", "")]
    assert gates.overall(exact) == "undecided"
    assert gates.overall([*exact, Gate("preprocess", 3, None, 0, "failed", "")]) == "failed"


def test_json_is_plain_and_reads_back() -> None:
    gate = Gate("flips", 0.01, (0.005, 0.02), 0.02, "passed", "because")
    assert json.loads(json.dumps(gate.to_json(), allow_nan=False)) == {
        "name": "flips",
        "value": 0.01,
        "interval": [0.005, 0.02],
        "threshold": 0.02,
        "verdict": "passed",
        "reason": "because",
    }
    assert Gate.from_json(gate.to_json()) == gate
    missing = gates.not_run("accuracy", "no labels")
    assert Gate.from_json(missing.to_json()) == missing
    slow = Gate("speed", 1.1, (1.0, 1.2), 1.2, "size only", "because")
    assert Gate.from_json(slow.to_json()) == slow


def test_json_has_no_nan() -> None:
    gate = Gate("x", float("nan"), (float("-inf"), float("nan")), 1e-4, "failed", "")
    assert gate.to_json()["value"] is None
    assert gate.to_json()["interval"] == [None, None]
    json.dumps(gate.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    "change", [{"verdict": "fine"}, {"value": "1"}, {"interval": [1]}, {"threshold": True}]
)
def test_a_gate_that_is_not_one_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Gate.from_json(Gate("x", 1.0, None, None, "passed", "").to_json() | change)


def test_the_bootstrap_of_a_report_takes_its_thresholds() -> None:
    found = Thresholds(confidence=0.9, resamples=7, seed=3).bootstrap
    assert (found.confidence, found.resamples, found.seed) == (0.9, 7, 3)
