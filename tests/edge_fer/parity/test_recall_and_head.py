"""The gates of the recall per class and of the coverage: faults, few faces, and which class is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import recall_score

from edge_fer.parity import sampled
from edge_fer.parity.gates import Gate, Thresholds
from edge_fer.parity.intervals import Bootstrap

LIMITS = Thresholds()
NAMES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")


def classes(sizes: dict[int, int], lost: dict[int, int], gained: dict[int, int] | None = None) -> Gate:
    """Judge certain answers: of each class, `lost` right ones turn wrong and `gained` wrong ones right."""
    labels = np.repeat(list(sizes), list(sizes.values()))
    place = np.concatenate([np.arange(size) for size in sizes.values()])
    lose = np.array([lost.get(label, 0) for label in labels])
    gain = np.array([(gained or {}).get(label, 0) for label in labels])
    before = np.where((lose <= place) & (place < lose + gain), (labels + 1) % 8, labels)
    after = np.where(place < lose, (labels + 1) % 8, labels)
    p, q = np.eye(8)[before], np.eye(8)[after]
    gate = sampled.recall_gate(p, q, labels, NAMES, LIMITS)
    change = recall_score(labels, after, average=None, labels=list(sizes), zero_division=0) - recall_score(
        labels, before, average=None, labels=list(sizes), zero_division=0
    )
    gated = [value for value, size in zip(change, sizes.values(), strict=True) if size >= 150]
    if gated:
        assert gate.value == pytest.approx(min(gated), abs=1e-12)
    return gate


def test_one_class_that_lost_much_fails_and_is_named() -> None:
    gate = classes({0: 1000, 4: 300, 6: 200, 7: 24}, {4: 45, 0: 3, 7: 24}, {4: 2})
    assert gate.verdict == "failed"
    assert gate.threshold == -0.05
    assert "anger 0.8500 against 0.9933 on 300 faces: 45 lost, 2 gained" in gate.reason
    assert "fell too far, at a level corrected for 3 classes (Bonferroni): anger" in gate.reason
    few = "happiness 0, surprise 0, sadness 0, disgust 0, contempt 24"
    assert f"not gated, with fewer than 150 faces: {few}" in gate.reason


def test_small_losses_pass_and_ungated_classes_do_not_count() -> None:
    gate = classes({0: 1000, 4: 300, 7: 24}, {0: 10, 4: 3, 7: 24})
    assert gate.verdict == "passed"
    assert "the worst of 2 classes" in gate.reason
    assert "contempt 24" in gate.reason


def test_a_class_that_may_have_lost_too_much_is_undecided_and_named() -> None:
    gate = classes({0: 1000, 4: 150}, {0: 20, 4: 5})
    assert gate.verdict == "undecided"
    assert "undecided of 2 classes: anger" in gate.reason


def test_the_smallest_gated_class_passes_without_a_loss() -> None:
    assert classes({0: 150}, {}).verdict == "passed"


def test_no_class_with_enough_faces_is_not_run() -> None:
    gate = classes({0: 149, 1: 20}, {0: 149})
    assert gate.verdict == "not run"
    assert (
        "no class has enough faces; not gated, with fewer than 150 faces: neutral 149, happiness 20"
        in gate.reason
    )


def test_the_interval_of_the_worst_class_is_made_of_the_bounds_of_all() -> None:
    """The lower bound needs no correction for the number of classes; the upper one has Bonferroni's."""
    sizes, lost = {0: 900, 3: 400, 4: 150}, {0: 40, 3: 10, 4: 2}
    gate = classes(sizes, lost)
    plain, corrected = Bootstrap(), Bootstrap(confidence=1 - 0.05 / 3)
    lower = min(plain.difference(lost[label], 0, size)[0] for label, size in sizes.items())
    upper = min(corrected.difference(lost[label], 0, size)[1] for label, size in sizes.items())
    assert gate.interval == (lower, upper)
    assert gate.value == pytest.approx(-40 / 900)


def test_a_class_without_faces_is_never_gated() -> None:
    p, labels = np.eye(8)[[1] * 10], np.array([1] * 10)
    gate = sampled.recall_gate(p, p, labels, NAMES, replace(LIMITS, recall_faces=0))
    assert gate.verdict == "undecided"
    assert "the worst of" not in gate.reason and "undecided of 1 classes: happiness" in gate.reason


def head(was: list[float], now: list[float], threshold: float = 0.5, dtype: type = np.float64) -> Gate:
    return sampled.head_gate(np.array(was, dtype), np.array(now, dtype), threshold, LIMITS)


def test_coverage_that_falls_or_rises_too_far_fails() -> None:
    kept, dropped = [0.9] * 1000 + [0.1] * 200, [0.9] * 950 + [0.1] * 250
    for was, now, shift in ((kept, dropped, -50 / 1200), (dropped, kept, 50 / 1200)):
        gate = head(was, now)
        assert gate.verdict == "failed"
        assert gate.value == pytest.approx(shift)
    assert (
        "coverage 0.8333 against 0.7917 at reliability 0.5000 on 1200 faces: 0 dropped, 50 kept anew"
        in gate.reason
    )


def test_coverage_is_paired() -> None:
    """As many faces go as come: the coverage is the same, its interval has the width of all of them."""
    was, now = [0.9] * 1000 + [0.1] * 200, [0.1] * 60 + [0.9] * 940 + [0.9] * 60 + [0.1] * 140
    gate = head(was, now)
    assert gate.value == 0.0
    assert gate.interval is not None
    spread = 1.645 * np.sqrt(120) / 1200
    assert gate.interval == pytest.approx((-spread, spread), rel=0.1)
    assert gate.verdict == "undecided"


def test_faces_at_the_threshold_are_kept_as_the_recogniser_keeps_them() -> None:
    assert "coverage 1.0000 against 1.0000" in head([0.5] * 400, [0.5] * 400).reason
    # 0.3 in float32 is more than 0.3: kept; 0.7 is less: dropped
    assert "coverage 1.0000" in head([0.3] * 400, [0.3] * 400, 0.3, np.float32).reason
    assert "coverage 0.0000" in head([0.7] * 400, [0.7] * 400, 0.7, np.float32).reason


def test_a_reliability_that_is_not_finite_fails() -> None:
    gate = head([0.9] * 3, [0.9, float("nan"), float("inf")])
    assert gate.verdict == "failed"
    assert gate.reason == "2 of 3 faces have a reliability that is not finite"
