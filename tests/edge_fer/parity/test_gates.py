"""The three-way rule at its edges, and every sampled gate with and without a fault."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_fer.parity import gates, metrics
from edge_fer.parity.gates import Gate, Thresholds

LIMITS = Thresholds()
Faces = tuple[NDArray[np.float64], NDArray[np.int64]]


@pytest.fixture(scope="module")
def faces() -> Faces:
    """1500 faces of a sharp and well calibrated model: labels drawn from its own distributions."""
    generator = np.random.default_rng(2)
    probabilities = generator.dirichlet(np.full(8, 0.2), 1500)
    drawn = generator.random((1500, 1)) > np.cumsum(probabilities, axis=1)
    return probabilities, np.minimum(drawn.sum(axis=1), 7)


def tempered(probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    powered = np.maximum(probabilities, 1e-12) ** (1 / temperature)
    return powered / powered.sum(axis=1, keepdims=True)


def flips(count: int, total: int, limits: Thresholds = LIMITS) -> Gate:
    return gates.flips_gate(np.arange(total) < count, gates.FLIPS, 0.02, limits)


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
    ],
)
def test_overall(verdicts: list[gates.Verdict], expected: str) -> None:
    assert gates.overall(Gate("x", None, None, None, verdict, "") for verdict in verdicts) == expected


def test_identical_outputs_pass_with_zero_width(faces: Faces) -> None:
    p, labels = faces
    found = [
        gates.accuracy_gate(p, p, labels, LIMITS),
        gates.distribution_gate(p, p, LIMITS),
        gates.calibration_gate(p, p, labels, LIMITS),
    ]
    assert [(gate.verdict, gate.value, gate.interval) for gate in found] == [
        ("passed", 1.0, (1.0, 1.0)),
        ("passed", 0.0, (0.0, 0.0)),
        ("passed", 0.0, (0.0, 0.0)),
    ]
    assert flips(0, 1500).verdict == "passed"


def test_zero_flips_in_50_faces_are_undecided_and_the_reason_says_how_many_faces_decide() -> None:
    found = flips(0, 50)
    assert found.verdict == "undecided"
    assert "149 faces are needed" in found.reason
    assert flips(0, 149).verdict == "passed"
    assert flips(0, 148).verdict == "undecided"


def test_flips_far_above_the_threshold_fail() -> None:
    assert flips(60, 1500).verdict == "failed"
    assert flips(5, 5).verdict == "failed"
    assert flips(30, 1500).verdict == "undecided"  # on the threshold


def test_lost_accuracy_fails_and_says_how_much(faces: Faces) -> None:
    p, labels = faces
    broken = p.copy()
    broken[:150] = np.roll(broken[:150], 1, axis=1)
    found = gates.accuracy_gate(p, broken, labels, LIMITS)
    assert found.verdict == "failed"
    assert found.value == pytest.approx(metrics.accuracy(broken, labels) / metrics.accuracy(p, labels))
    assert "McNemar p" in found.reason
    assert "lost" in found.reason
    assert "faces could show a drop of" in found.reason


def test_gained_accuracy_passes(faces: Faces) -> None:
    p, labels = faces
    better = np.where(np.arange(1500)[:, None] < 100, np.eye(8)[labels], p)
    assert gates.accuracy_gate(p, better, labels, LIMITS).verdict == "passed"


def test_few_changes_in_few_faces_are_undecided(faces: Faces) -> None:
    p, labels = faces
    changed = p[:100].copy()
    lost = np.flatnonzero(metrics.correct(changed, labels[:100]))[:1]
    changed[lost] = np.roll(changed[lost], 1, axis=1)
    assert gates.accuracy_gate(p[:100], changed, labels[:100], LIMITS).verdict == "undecided"


def test_no_ratio_without_a_right_answer() -> None:
    p = np.eye(8)[[0, 0]]
    found = gates.accuracy_gate(p, p, np.array([1, 1]), LIMITS)
    assert found.verdict == "not run"
    assert found.value is None


def test_one_face_has_an_interval_everywhere() -> None:
    p, label = np.eye(8)[[1]], np.array([1])
    assert gates.accuracy_gate(p, p, label, LIMITS).interval == (1.0, 1.0)
    assert gates.calibration_gate(p, p, label, LIMITS).interval == (0.0, 0.0)
    assert gates.distribution_gate(p, p, LIMITS).interval == (0.0, 0.0)
    assert flips(0, 1).interval == (0.0, pytest.approx(0.95))


def test_a_temperature_fails_calibration_and_distribution_only(faces: Faces) -> None:
    p, labels = faces
    hot = tempered(p, 1.5)
    assert gates.calibration_gate(p, hot, labels, LIMITS).verdict == "failed"
    assert gates.distribution_gate(p, hot, LIMITS).verdict == "failed"
    assert gates.accuracy_gate(p, hot, labels, LIMITS).verdict == "passed"
    assert not metrics.flips(p, hot).any()


def test_calibration_that_improves_too_much_is_a_change_as_well(faces: Faces) -> None:
    p, labels = faces
    found = gates.calibration_gate(tempered(p, 1.5), p, labels, LIMITS)
    assert found.value is not None
    assert found.value < -0.01
    assert found.verdict == "failed"


def test_a_small_change_of_the_distribution_passes(faces: Faces) -> None:
    p, labels = faces
    warm = tempered(p, 1.01)
    assert gates.distribution_gate(p, warm, LIMITS).verdict == "passed"
    assert gates.calibration_gate(p, warm, labels, LIMITS).verdict == "passed"


def test_gates_are_deterministic_and_follow_the_seed(faces: Faces) -> None:
    p, labels = faces
    hot = tempered(p, 1.2)
    assert gates.calibration_gate(p, hot, labels, LIMITS) == gates.calibration_gate(p, hot, labels, LIMITS)
    other = gates.calibration_gate(p, hot, labels, Thresholds(seed=1))
    assert other.interval != gates.calibration_gate(p, hot, labels, LIMITS).interval


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
