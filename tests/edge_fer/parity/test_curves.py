"""The bins of the plots, against numpy, scikit-learn and scipy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.spatial.distance import jensenshannon
from sklearn.calibration import calibration_curve

from edge_fer.parity import metrics
from edge_fer.parity.curves import DIVERGENCE_EDGES, calibration_bins, confidence_grid, curves
from tests.edge_fer.parity.answers import answers, answers_of, certain, seeds


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_the_ece_is_the_sum_over_the_bins(seed: int) -> None:
    reference, _ = answers(seed, 1 + seed % 100, unlabelled=0.0, coarse=bool(seed % 2))
    p, labels = reference.probabilities, reference.labels
    bins = calibration_bins(p, labels)
    assert len(bins) == 15
    gaps = [one["share"] * abs(one["confidence"] - one["accuracy"]) for one in bins]
    assert sum(gaps) == pytest.approx(metrics.ece(p, labels), abs=1e-12)
    confidence, accuracy, share = (
        np.array([one[key] for one in bins]) for key in ("confidence", "accuracy", "share")
    )
    assert share.sum() == pytest.approx(1.0)
    assert (np.diff(confidence) > -1e-6).all()
    assert (confidence * share).sum() == pytest.approx(p.max(axis=1).mean(dtype=float), abs=1e-9)
    assert (accuracy * share).sum() == pytest.approx(metrics.accuracy(p, labels), abs=1e-12)


def test_bins_of_whole_faces_agree_with_scikit_learn() -> None:
    reference, _ = answers(5, 150, unlabelled=0.0)
    top, right = reference.probabilities.max(axis=1), reference.probabilities.argmax(axis=1)
    right = right == reference.labels
    accuracy, confidence = calibration_curve(right, top, n_bins=15, strategy="quantile")
    bins = calibration_bins(reference.probabilities, reference.labels)
    np.testing.assert_allclose([one["accuracy"] for one in bins], accuracy, atol=1e-12)
    np.testing.assert_allclose([one["confidence"] for one in bins], confidence, atol=1e-7)


def test_one_face_fills_every_bin_and_a_bin_with_all_right_is_exactly_right() -> None:
    assert (
        calibration_bins(certain([3]), np.array([3]))
        == [{"confidence": 1.0, "accuracy": 1.0, "share": 1 / 15}] * 15
    )
    reference, _ = answers(2, 997)
    p = reference.probabilities
    assert {one["accuracy"] for one in calibration_bins(p, p.argmax(axis=1))} == {1.0}


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_histograms_agree_with_numpy(seed: int) -> None:
    reference, outputs = answers(seed, noise=10.0 ** (seed % 5 - 3), coarse=bool(seed % 3))
    found = curves(reference, outputs)
    p, q = reference.probabilities, outputs.probabilities
    divergence = jensenshannon(p.astype(float), q.astype(float), axis=1) ** 2
    counts = np.array(found["divergence"]["counts"])
    assert counts.sum() == len(p)
    if np.abs(np.subtract.outer(divergence, DIVERGENCE_EDGES[1:])).min() > 1e-12:
        assert (counts == np.histogram(divergence, (-1.0, *DIVERGENCE_EDGES[1:]))[0]).all()
    reliability = found["reliability"]
    for key, side in (("counts", outputs), ("reference_counts", reference)):
        expected = np.histogram(side.reliability.astype(float), reliability["edges"])[0]
        assert reliability[key] == expected.tolist()
    top = p.argmax(axis=1)[:, None]
    x, y = (np.take_along_axis(side, top, axis=1)[:, 0].astype(float) for side in (p, q))
    grid = found["confidence"]
    expected = np.histogram2d(x, y, bins=[grid["edges"], grid["edges"]])[0]
    assert (np.array(grid["counts"]) == expected).all()
    flipped = p.argmax(axis=1) != q.argmax(axis=1)
    assert grid["flips"] == list(map(list, zip(x[flipped].tolist(), y[flipped].tolist(), strict=True)))


def test_the_edges_are_those_of_the_plots() -> None:
    found = curves(*answers(0))
    assert (len(found["confidence"]["edges"]), len(found["reliability"]["edges"])) == (41, 21)
    assert found["confidence"]["edges"][28] == 0.7  # the shortest number, not 0.7000000000000001
    edges = np.array(found["divergence"]["edges"])
    assert (edges[1], edges[-1]) == (1e-8, 1.0)
    np.testing.assert_allclose(np.diff(np.log10(edges)), 0.25)


def test_what_did_not_move_lies_below_the_first_edge_and_what_left_in_the_last_bin() -> None:
    labels, faces = [0, 1, 2], certain([0, 1, 2])
    still = curves(*answers_of(labels, faces, faces))["divergence"]["counts"]
    assert (still[0], sum(still)) == (3, 3)
    left = curves(*answers_of(labels, faces, certain([1, 2, 0])))
    assert np.array(left["divergence"]["counts"]).nonzero()[0].tolist() == [32]  # log 2, above 10 ** -0.25
    assert (left["confidence"]["counts"][39][0], left["confidence"]["flips"]) == (3, [[1.0, 0.0]] * 3)


def test_many_flips_are_drawn_evenly() -> None:
    y = np.linspace(0.0, 0.4, 1000, dtype=np.float32)
    after = np.zeros((1000, 8), np.float32)
    after[:, 0], after[:, 1] = y, 1 - y
    flips = np.array(confidence_grid(certain([0] * 1000), after)["flips"])
    assert flips.shape == (300, 2)
    assert (flips[:, 0] == 1.0).all()
    assert (np.diff(flips[:, 1]) > 0).all() and np.diff(flips[:, 1]).max() < 0.0017
    assert flips[0, 1] == 0.0 and flips[-1, 1] > 0.398


def test_values_outside_are_in_the_nearest_bin_and_those_that_are_none_in_no_bin() -> None:
    reference, outputs = answers_of([0] * 3, certain([0] * 3), certain([0] * 3))
    odd = replace(outputs, reliability=np.array([-1e-7, 1.0000001, np.nan], np.float32))
    found = curves(reference, odd)["reliability"]
    assert (found["counts"][0], found["counts"][-1], sum(found["counts"])) == (1, 1, 2)
    assert found["reference_counts"][-1] == 3


def test_a_value_on_an_edge_is_in_the_bin_above() -> None:
    half = np.array([[0.5, 0.25, 0.25, 0, 0, 0, 0, 0]], np.float32)
    found = curves(*answers_of([0], half, half))
    assert found["confidence"]["counts"][20][20] == found["reliability"]["counts"][10] == 1


def test_the_curves_are_of_labelled_faces_and_end_at_the_error_rates() -> None:
    reference, outputs = answers(4)
    known = reference.labels >= 0
    found = curves(reference, outputs)
    curve = found["risk_coverage"]
    assert [len(curve[key]) for key in ("coverage", "risk", "reference_risk")] == [101] * 3
    for key, bins, side in (
        ("risk", "calibration", outputs),
        ("reference_risk", "reference_calibration", reference),
    ):
        p, labels = side.probabilities[known], reference.labels[known]
        right = p.argmax(axis=1) == labels
        assert curve[key][-1] == pytest.approx(1 - right.mean())
        half = np.argsort(-side.reliability[known], kind="stable")[: known.sum() // 2]
        assert curve[key][50] == pytest.approx(1 - right[half].mean(), abs=1 / known.sum())
        assert found[bins] == calibration_bins(p, labels)


def test_without_labels_the_other_curves_are_left() -> None:
    reference, outputs = answers(4, unlabelled=1.0)
    found = curves(reference, outputs)
    absent = {"calibration", "reference_calibration", "risk_coverage"}
    assert {key for key, value in found.items() if value is None} == absent
