"""Every sampled gate with and without a fault, with too few faces, and by brute force on its resamples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import norm

from edge_fer.parity import gates, metrics, sampled
from edge_fer.parity.gates import Gate, Thresholds
from edge_fer.parity.intervals import Bootstrap

LIMITS = Thresholds()
FEW = Thresholds(resamples=60)
NAMES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
Faces = tuple[NDArray[np.float64], NDArray[np.int64]]


def draw(seed: int, faces: int) -> Faces:
    """Faces of a sharp and well calibrated model: labels drawn from its own distributions."""
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.full(8, 0.2), faces)
    drawn = generator.random((faces, 1)) > np.cumsum(probabilities, axis=1)
    return probabilities, np.minimum(drawn.sum(axis=1), 7)


@pytest.fixture(scope="module")
def faces() -> Faces:
    return draw(2, 1500)


def tempered(probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    powered = np.maximum(probabilities, 1e-12) ** (1 / temperature)
    return powered / powered.sum(axis=1, keepdims=True)


def flips(count: int, total: int, limits: Thresholds = LIMITS) -> Gate:
    return sampled.flips_gate(np.arange(total) < count, gates.FLIPS, 0.02, limits)


def run(
    name: str,
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    labels: NDArray[np.int64],
    limits: Thresholds = LIMITS,
) -> Gate:
    """Run one gate; the surest probability stands for the reliability."""
    changed = metrics.flips(p, q)
    sure = changed[metrics.surest_half(p)]
    found = {
        gates.ACCURACY: lambda: sampled.accuracy_gate(p, q, labels, limits),
        gates.FLIPS: lambda: sampled.flips_gate(changed, gates.FLIPS, limits.flips, limits),
        gates.SURE_FLIPS: lambda: sampled.flips_gate(sure, gates.SURE_FLIPS, limits.sure_flips, limits),
        gates.DISTRIBUTION: lambda: sampled.distribution_gate(p, q, limits),
        gates.CALIBRATION: lambda: sampled.calibration_gate(p, q, labels, limits),
        gates.RECALL: lambda: sampled.recall_gate(p, q, labels, NAMES, limits),
        gates.HEAD: lambda: sampled.head_gate(p.max(axis=1), q.max(axis=1), 0.6, limits),
    }[name]()
    assert found.name == name
    return found


def all_gates(
    p: NDArray[np.float64], q: NDArray[np.float64], labels: NDArray[np.int64], limits: Thresholds = LIMITS
) -> dict[str, Gate]:
    return {name: run(name, p, q, labels, limits) for name in gates.SAMPLED}


def certain(faces: int, label: int = 1) -> Faces:
    """Faces on which the model is sure and right."""
    return np.eye(8)[np.full(faces, label)], np.full(faces, label)


def test_identical_outputs_pass_and_their_intervals_leave_room_for_unseen_faces() -> None:
    p, labels = draw(2, 3000)
    for gate in all_gates(p, p, labels).values():
        assert gate.verdict == "passed", gate
        assert gate.interval is not None and gate.value is not None
        assert gate.interval[0] <= gate.value < gate.interval[1]


@pytest.mark.parametrize("count", [1, 2, 50])
def test_identical_outputs_of_few_faces_pass_no_gate(faces: Faces, count: int) -> None:
    p, labels = faces[0][:count], faces[1][:count]
    found = all_gates(p, p, labels)
    assert found.pop("per class").verdict == "not run"
    if not metrics.correct(p, labels).any():
        assert found.pop("accuracy").verdict == "not run"
    assert {gate.verdict for gate in found.values()} == {"undecided"}
    for name in ("flips", "distribution", "calibration", "reliability head"):
        assert "faces are needed" in found[name].reason


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("flips", 149),
        ("flips, surest half", 2 * 598 - 1),
        ("distribution", 414),
        ("calibration", 598),
        ("reliability head", 299),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_smallest_set_without_a_change_that_passes_is_the_one_the_reason_names(
    name: str, needed: int, seed: int
) -> None:
    limits = Thresholds(seed=seed)
    p, labels = certain(needed)
    assert run(name, p, p, labels, limits).verdict == "passed"
    below = run(name, p[1:], p[1:], labels[1:], limits)
    assert below.verdict == "undecided"
    # of the surest half, half the faces count
    assert f"{min(needed, 598)} faces are needed" in below.reason


def test_accuracy_names_the_smallest_set() -> None:
    p, labels = certain(299)
    assert sampled.accuracy_gate(p, p, labels, LIMITS).verdict == "passed"
    below = sampled.accuracy_gate(p[1:], p[1:], labels[1:], LIMITS)
    assert below.verdict == "undecided"
    assert "299 faces could show a drop of 0.0100" in below.reason


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 400),
    temperature=st.sampled_from([1.0, 1.02, 1.5, 4.0]),
    rolled=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
)
def test_every_verdict_follows_from_the_interval_shown(
    seed: int, count: int, temperature: float, rolled: float
) -> None:
    p, labels = draw(seed, count)
    broken = np.random.default_rng(seed).random((count, 1)) < rolled
    q = np.where(broken, np.roll(p, 1, axis=1), tempered(p, temperature))
    for name, gate in all_gates(p, q, labels, replace(FEW, recall_faces=20)).items():
        if gate.verdict == "not run":
            assert gate.interval is None and gate.value is None
            continue
        rule = {"accuracy": gates.at_least, "per class": gates.at_least}.get(
            name, gates.within if name in ("calibration", "reliability head") else gates.at_most
        )
        assert gate.interval is not None and gate.threshold is not None
        assert gate.verdict == rule(gate.interval, gate.threshold), gate


def test_zero_flips_in_50_faces_are_undecided_and_the_reason_says_how_many_faces_decide() -> None:
    found = flips(0, 50)
    assert found.verdict == "undecided"
    assert "even without a flip 149 faces are needed" in found.reason


def test_flips_far_above_the_threshold_fail() -> None:
    assert flips(60, 1500).verdict == "failed"
    assert flips(5, 5).verdict == "failed"
    assert flips(30, 1500).verdict == "undecided"  # on the threshold


def test_lost_accuracy_fails_and_says_how_much(faces: Faces) -> None:
    p, labels = faces
    broken = p.copy()
    broken[:150] = np.roll(broken[:150], 1, axis=1)
    found = sampled.accuracy_gate(p, broken, labels, LIMITS)
    assert found.verdict == "failed"
    assert found.value == pytest.approx(metrics.accuracy(broken, labels) / metrics.accuracy(p, labels))
    assert "McNemar p" in found.reason
    assert "lost" in found.reason
    assert "faces could show a drop of" in found.reason


def test_every_answer_lost_fails_but_not_on_one_face() -> None:
    p, labels = certain(50)
    wrong = np.roll(p, 1, axis=1)
    assert sampled.accuracy_gate(p, wrong, labels, LIMITS).verdict == "failed"
    assert sampled.accuracy_gate(p[:1], wrong[:1], labels[:1], LIMITS).verdict == "undecided"


def test_gained_accuracy_passes(faces: Faces) -> None:
    p, labels = faces
    better = np.where(np.arange(1500)[:, None] < 100, np.eye(8)[labels], p)
    assert sampled.accuracy_gate(p, better, labels, LIMITS).verdict == "passed"


def test_no_ratio_without_a_right_answer() -> None:
    p = np.eye(8)[[0, 0]]
    found = sampled.accuracy_gate(p, p, np.array([1, 1]), LIMITS)
    assert found.verdict == "not run"
    assert found.value is None


def test_a_temperature_fails_calibration_and_distribution_but_not_accuracy(faces: Faces) -> None:
    p, labels = faces
    found = all_gates(p, tempered(p, 1.5), labels)
    assert found["calibration"].verdict == found["distribution"].verdict == "failed"
    assert found["accuracy"].verdict == found["flips"].verdict == "passed"
    assert found["reliability head"].verdict == "failed"  # less sure: fewer faces are kept


def test_calibration_that_improves_too_much_is_a_change_as_well(faces: Faces) -> None:
    p, labels = faces
    found = sampled.calibration_gate(tempered(p, 1.5), p, labels, LIMITS)
    assert found.value is not None
    assert found.value < -0.01
    assert found.verdict == "failed"


def test_a_small_change_of_the_distribution_passes(faces: Faces) -> None:
    p, labels = faces
    warm = tempered(p, 1.002)
    assert sampled.distribution_gate(p, warm, LIMITS).verdict == "passed"
    assert sampled.calibration_gate(p, warm, labels, LIMITS).verdict == "passed"


def test_a_few_ruined_faces_do_not_hide_in_the_mean(faces: Faces) -> None:
    p, _ = faces
    ruined = p.copy()
    ruined[:30] = np.roll(ruined[:30], 1, axis=1)  # 2 % of the faces, 0.7 % would be the budget
    assert sampled.distribution_gate(p, ruined, LIMITS).verdict == "failed"


def test_gates_are_deterministic_and_follow_the_seed(faces: Faces) -> None:
    p, labels = faces
    hot = tempered(p, 1.2)
    once, again, other = (all_gates(p, hot, labels, replace(FEW, seed=seed)) for seed in (0, 0, 1))
    assert once == again
    for name in ("distribution", "calibration"):
        assert other[name].interval != once[name].interval


def weighted_ece(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], weights: NDArray[np.float64]
) -> float:
    """Fill 15 bins face by face, least sure first, splitting a face that does not fit: the definition."""
    bins, room, gap, total = 15, 1 / 15, 0.0, 0.0
    for face in np.argsort(confidence, kind="stable"):
        left = float(weights[face])
        while left > 0:
            part = min(left, room)
            gap += part * (confidence[face] - right[face])
            left, room = left - part, room - part
            if room <= 1e-15:
                total, gap, room = total + abs(gap), 0.0, 1 / bins
    return total + abs(gap)


def test_calibration_interval_by_brute_force_on_the_same_resamples() -> None:
    p, labels = draw(4, 70)
    q = tempered(p, 0.7)
    right = np.arange(70) % 10 == 0  # far too sure, so that noise hides nothing
    labels = np.where(right, p.argmax(axis=1), (p.argmax(axis=1) + 1) % 8)
    bootstrap = Bootstrap(resamples=25, seed=3)

    def change(weights: NDArray[np.float64]) -> float:
        return weighted_ece(q.max(axis=1), right, weights) - weighted_ece(p.max(axis=1), right, weights)

    value = change(np.full(70, 1 / 70))
    pairs = list(zip(bootstrap.weights(70), bootstrap.unseen(70), strict=True))
    lower = [(1 - unseen) * (2 * value - change(weights)) - 2 * unseen for weights, unseen in pairs]
    upper = [(1 - unseen) * (2 * value - change(weights)) + 2 * unseen for weights, unseen in pairs]
    found = sampled.calibration_gate(p, q, labels, Thresholds(resamples=25, seed=3))
    assert found.value == pytest.approx(value, abs=1e-9)
    expected = np.quantile(lower, 0.05, method="hazen"), np.quantile(upper, 0.95, method="hazen")
    assert found.interval == pytest.approx(expected, abs=1e-9)


def test_a_change_that_noise_hides_does_not_pass() -> None:
    """A perfectly calibrated model's ECE rose by 0.01, the threshold; its noise on these sets is 0.025."""
    for seed in range(10):
        p, labels = draw(1000 + seed, 3500)
        gate = sampled.calibration_gate(p, tempered(p, 1.0451), labels, FEW)
        assert gate.verdict == "undecided", gate


@pytest.mark.parametrize(("seed", "temperature"), [(1002, 1.04), (1005, 1.04), (1028, 0.96)])
def test_the_far_bound_is_the_hidden_change_by_brute_force(seed: int, temperature: float) -> None:
    p, labels = draw(seed, 3000)
    q = tempered(p, temperature)
    gate = sampled.calibration_gate(p, q, labels, FEW)
    right, order = p.argmax(axis=1) == labels, np.argsort(p.max(axis=1))
    ends = []
    for side in (norm.ppf(0.05), norm.ppf(0.95)):
        ends.append([])
        for part in np.split(order, 15):
            accuracy = (right[part].sum() + 1) / 202
            g = (p.max(axis=1) - right)[part].mean() + side * np.sqrt(accuracy * (1 - accuracy) / 200)
            d = (q.max(axis=1) - p.max(axis=1))[part].mean()
            ends[-1].append(abs(g + d) - abs(g))
    high = sum(map(max, zip(*ends, strict=True))) / 15
    low = sum(map(min, zip(*ends, strict=True))) / 15
    unseen = 1 - 0.05 ** (1 / 3000)
    assert gate.value is not None and gate.interval is not None
    far = gate.interval[1] if gate.value >= 0 else -gate.interval[0]
    assert far == pytest.approx((1 - unseen) * max(high, -low) + 2 * unseen, rel=1e-9)


def test_faces_all_right_do_not_prove_the_sign_of_their_gap() -> None:
    """Half the faces are surer, half less sure, by as much: no change, if all such faces are right."""

    def sure(low: float, high: float) -> NDArray[np.float64]:
        p = np.repeat([low, high], 600) - np.tile(np.arange(600) * 1e-6, 2)
        return np.stack([p, 1 - p], axis=1)

    gate = sampled.calibration_gate(sure(0.98, 0.99), sure(0.97, 1.0), np.zeros(1200, int), LIMITS)
    unseen = 1 - 0.05 ** (1 / 1200)
    assert gate.value == pytest.approx(0.0, abs=1e-12)
    assert gate.verdict == "undecided"
    assert gate.interval is not None
    # of 80 faces in a bin, all right, one in 80 may be wrong: then their gap is positive, and grew
    assert np.abs(gate.interval).max() == pytest.approx((1 - unseen) * 0.01 + 2 * unseen, rel=0.05)


def test_distribution_interval_by_brute_force_on_the_same_resamples() -> None:
    p, _ = draw(4, 70)
    q = tempered(p, 1.3)
    divergence = jensenshannon(p, q, axis=1) ** 2
    bootstrap = Bootstrap(resamples=25, seed=3)
    means = [sum(weights * divergence) for weights in bootstrap.weights(70)]
    lower = [(1 - unseen) * mean for mean, unseen in zip(means, bootstrap.unseen(70), strict=True)]
    upper = [low + unseen * np.log(2) for low, unseen in zip(lower, bootstrap.unseen(70), strict=True)]
    found = sampled.distribution_gate(p, q, Thresholds(resamples=25, seed=3))
    assert found.value == pytest.approx(divergence.mean(), abs=1e-9)
    expected = np.quantile(lower, 0.05, method="hazen"), np.quantile(upper, 0.95, method="hazen")
    assert found.interval == pytest.approx(expected, abs=1e-9)
