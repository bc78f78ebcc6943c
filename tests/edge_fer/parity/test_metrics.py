"""Every figure against scikit-learn and scipy, or against a plain loop over the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar
from scipy.spatial.distance import cosine, jensenshannon
from scipy.special import log_softmax, rel_entr
from scipy.stats import entropy
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score, log_loss, recall_score

from edge_fer.parity import metrics

CLOSE = {"rtol": 1e-9, "atol": 1e-12}
seeds = st.integers(0, 2**32 - 1)


def draw(seed: int, faces: int = 200, classes: int = 8) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.full(classes, 0.4), faces).astype(np.float32)
    return probabilities, generator.integers(0, classes, faces)


def plain_ece(probabilities: NDArray[np.float32], labels: NDArray[np.int64], bins: int) -> float:
    """Sort by confidence, cut into equal parts, compare mean confidence with accuracy: the definition."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    parts = np.split(np.argsort(confidence, kind="stable"), bins)
    return sum(abs(confidence[part].mean() - right[part].mean()) * len(part) for part in parts) / len(labels)


@settings(max_examples=40)
@given(seed=seeds, faces=st.integers(1, 300))
def test_scores_agree_with_scikit_learn(seed: int, faces: int) -> None:
    probabilities, labels = draw(seed, faces)
    top = probabilities.argmax(axis=1)
    present = np.unique(labels)
    recall = metrics.recall_per_class(probabilities, labels)
    assert metrics.accuracy(probabilities, labels) == pytest.approx((top == labels).mean(), abs=1e-12)
    np.testing.assert_array_equal(
        metrics.confusion(probabilities, labels), confusion_matrix(labels, top, labels=range(8))
    )
    np.testing.assert_allclose(
        recall[present], recall_score(labels, top, labels=present, average=None, zero_division=0), **CLOSE
    )
    assert np.isnan(np.delete(recall, present)).all()
    np.testing.assert_allclose(
        metrics.macro_f1(probabilities, labels), f1_score(labels, top, average="macro"), **CLOSE
    )


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@settings(max_examples=20)
@given(seed=seeds)
def test_mean_recall_is_balanced_accuracy(seed: int) -> None:
    probabilities, labels = draw(seed, 100)
    top = probabilities.argmax(axis=1)
    np.testing.assert_allclose(
        metrics.mean_recall(probabilities, labels), balanced_accuracy_score(labels, top), **CLOSE
    )


@settings(max_examples=20)
@given(seed=seeds)
def test_likelihood_and_brier_agree_with_independent_forms(seed: int) -> None:
    probabilities, labels = draw(seed)
    exact = probabilities.astype(np.float64)
    true = exact[np.arange(len(exact)), labels]
    np.testing.assert_allclose(
        metrics.nll(probabilities, labels), -np.log(np.maximum(true, 1e-12)).mean(), **CLOSE
    )
    expected = (np.square(exact).sum(axis=1) - 2 * true + 1).mean()
    np.testing.assert_allclose(metrics.brier(probabilities, labels), expected, **CLOSE)


def test_nll_agrees_with_scikit_learn_where_nothing_is_clamped() -> None:
    probabilities = np.random.default_rng(3).dirichlet(np.full(8, 2.0), 500)
    labels = np.arange(500) % 8
    np.testing.assert_allclose(
        metrics.nll(probabilities, labels), log_loss(labels, probabilities, labels=range(8)), **CLOSE
    )


@settings(max_examples=30)
@given(seed=seeds, bins=st.integers(1, 20), each=st.integers(1, 20))
def test_ece_is_the_definition_where_the_bins_divide_the_faces(seed: int, bins: int, each: int) -> None:
    probabilities, labels = draw(seed, bins * each)
    np.testing.assert_allclose(
        metrics.ece(probabilities, labels, bins), plain_ece(probabilities, labels, bins), rtol=1e-9, atol=1e-9
    )


def test_ece_shares_a_border_face_between_its_bins() -> None:
    # Three faces in two bins: each bin holds one and a half of them.
    probabilities = np.array([[0.6, 0.4], [0.75, 0.25], [0.9, 0.1]])
    gaps = np.array([0.6 - 1, 0.75 - 0, 0.9 - 0])
    expected = (abs(gaps[0] + gaps[1] / 2) + abs(gaps[1] / 2 + gaps[2])) / 3
    assert metrics.ece(probabilities, np.array([0, 1, 1]), bins=2) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=30)
@given(seed=seeds)
def test_ece_does_not_depend_on_the_order_of_faces_even_with_ties(seed: int) -> None:
    probabilities, labels = draw(seed, 97)
    coarse = np.round(probabilities * 4 + 0.25) / 4  # many equal confidences
    shuffled = np.random.default_rng(seed).permutation(97)
    once, again = metrics.ece(coarse, labels), metrics.ece(coarse[shuffled], labels[shuffled])
    assert once == pytest.approx(again, abs=1e-12)


@settings(max_examples=20)
@given(seed=seeds)
def test_ece_of_a_resample_is_the_ece_of_the_repeated_faces(seed: int) -> None:
    probabilities, labels = draw(seed, 90)
    drawn = np.random.default_rng(seed).integers(0, 90, 90)
    counts = np.bincount(drawn, minlength=90)
    curve = metrics.CalibrationCurve.of(probabilities, labels)
    assert curve.ece(counts / 90) == pytest.approx(
        metrics.ece(probabilities[drawn], labels[drawn]), abs=1e-12
    )


@settings(max_examples=30)
@given(seed=seeds)
def test_divergences_agree_with_scipy(seed: int) -> None:
    p, q = draw(seed)[0], draw(seed ^ 1)[0]
    np.testing.assert_allclose(
        metrics.jensen_shannon(p, q),
        jensenshannon(p.astype(float), q.astype(float), axis=1) ** 2,
        rtol=1e-9,
        atol=1e-9,
    )
    smooth = [(rows.astype(float) / rows.sum(1, dtype=float)[:, None] + 1e-6) / (1 + 8e-6) for rows in (p, q)]
    expected = (rel_entr(*smooth) + rel_entr(*smooth[::-1])).sum(axis=1)
    np.testing.assert_allclose(metrics.jeffreys(p, q), expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=30)
@given(seed=seeds, sharpness=st.sampled_from([1.0, 30.0, 1000.0]))
def test_divergences_agree_with_scipy_where_probabilities_are_zero_and_one(
    seed: int, sharpness: float
) -> None:
    generator = np.random.default_rng(seed)
    p, q = (np.round(generator.dirichlet(np.full(8, 1 / sharpness), 60), 2) + 0.0 for _ in range(2))
    p, q = (np.where(rows.sum(axis=1, keepdims=True) > 0, rows, np.eye(8)[0]) for rows in (p, q))
    assert (p == 0).any() and (sharpness == 1.0 or (p == 1).any())
    expected = jensenshannon(p, q, axis=1) ** 2
    np.testing.assert_allclose(metrics.jensen_shannon(p, q), expected, rtol=1e-9, atol=1e-9)
    p, q = (rows / rows.sum(axis=1, keepdims=True) + 1e-6 for rows in (p, q))
    both_ways = entropy(p, q, axis=1) + entropy(q, p, axis=1)  # scipy normalises the rows
    np.testing.assert_allclose(metrics.jeffreys(p - 1e-6, q - 1e-6), both_ways, rtol=1e-9, atol=1e-9)


def test_the_least_float_has_no_infinite_divergence() -> None:
    p, q = np.array([[5e-324, 1.0]]), np.array([[0.0, 1.0]])
    assert metrics.jensen_shannon(p, q)[0] == 0.0
    assert np.isfinite(metrics.jeffreys(p, q)).all()


def test_divergences_at_probabilities_of_zero_and_one() -> None:
    p, q = np.eye(8)[[0, 0]], np.eye(8)[[0, 1]]
    np.testing.assert_allclose(metrics.jensen_shannon(p, q), [0.0, np.log(2)], atol=1e-15)
    jeffreys = metrics.jeffreys(p, q)
    assert jeffreys[0] == 0.0
    assert jeffreys[1] == pytest.approx(2 * np.log(1e6), rel=1e-4)  # two classes differ by 1 against 1e-6


def test_identical_distributions_have_no_divergence_and_no_flips() -> None:
    p, _ = draw(5)
    assert (metrics.jensen_shannon(p, p) == 0.0).all()
    assert not metrics.flips(p, p).any()


def test_one_face_that_is_certain_and_right() -> None:
    p, label = np.eye(8)[[3]], np.array([3])
    assert metrics.accuracy(p, label) == metrics.mean_recall(p, label) == metrics.macro_f1(p, label) == 1.0
    assert metrics.ece(p, label) == metrics.brier(p, label) == metrics.nll(p, label) == 0.0


def test_one_face_that_is_certain_and_wrong() -> None:
    p, label = np.eye(8)[[3]], np.array([4])
    assert metrics.accuracy(p, label) == 0.0
    assert metrics.ece(p, label) == pytest.approx(1.0)
    assert metrics.brier(p, label) == 2.0
    assert metrics.nll(p, label) == pytest.approx(-np.log(1e-12))


def test_ties_go_to_the_first_class_and_the_first_faces() -> None:
    flat = np.full((4, 8), 0.125)
    assert metrics.top1(flat).tolist() == [0, 0, 0, 0]
    assert metrics.surest_half(flat).tolist() == [0, 1]


def test_surest_half_is_rounded_up_and_sorted_by_confidence() -> None:
    p = np.array([[0.5, 0.5], [0.9, 0.1], [0.3, 0.7]])
    assert metrics.surest_half(p).tolist() == [1, 2]
    assert metrics.surest_half(p[:1]).tolist() == [0]


@pytest.mark.parametrize("labels", [[-1, 0], [0, 8], [0]])
def test_labels_that_do_not_fit_are_refused(labels: list[int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        metrics.accuracy(np.full((2, 8), 0.125), np.array(labels))


def cross_entropy(
    log_temperature: float, probabilities: NDArray[np.float64], target: NDArray[np.float64]
) -> float:
    logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-12)) / np.exp(log_temperature)
    return float(-(target * log_softmax(logits, axis=1)).sum(axis=1).mean())


def least(probabilities: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """Return scipy's T: a search for the least cross-entropy, sharpened by the zero of its slope."""

    def slope(at: float) -> float:  # by complex step: exact to rounding
        logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-12)) / np.exp(at + 1e-30j)
        logits = logits - logits.real.max(axis=1, keepdims=True)
        logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return float(-(target * logs).sum(axis=1).mean().imag / 1e-30)

    rough = minimize_scalar(
        cross_entropy, bounds=(-4.6, 4.6), args=(probabilities, target), method="bounded"
    ).x
    return float(np.exp(brentq(slope, rough - 0.01, rough + 0.01, xtol=1e-14)))


@settings(max_examples=15, deadline=None)
@given(seed=seeds, faces=st.integers(50, 300), sharpness=st.sampled_from([0.4, 1.0, 2.5]))
def test_temperature_agrees_with_scipy(seed: int, faces: int, sharpness: float) -> None:
    p, _ = draw(seed, faces)
    drawn = np.random.default_rng(seed).random((faces, 1)) > np.cumsum(p.astype(np.float64), axis=1)
    labels = np.minimum(drawn.sum(axis=1), 7)
    p = p.astype(np.float64) ** sharpness
    p /= p.sum(axis=1, keepdims=True)
    assert metrics.temperature(p, labels) == pytest.approx(least(p, np.eye(8)[labels]), rel=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=seeds, faces=st.integers(1, 200), temperature=st.floats(0.3, 4.0))
def test_repair_temperature_agrees_with_scipy(seed: int, faces: int, temperature: float) -> None:
    generator = np.random.default_rng(seed)
    expected = generator.dirichlet(np.full(8, 0.7), faces)
    noisy = np.log(np.maximum(expected, 1e-12)) / temperature + generator.normal(0, 0.2, expected.shape)
    got = np.exp(log_softmax(noisy, axis=1))
    target = np.maximum(expected, 1e-12)
    target /= target.sum(axis=1, keepdims=True)
    assert metrics.repair_temperature(expected, got) == pytest.approx(least(got, target), rel=1e-9)


@pytest.mark.parametrize("temperature", [0.5, 0.9, 1.0, 1.5, 5.0])
def test_repair_temperature_undoes_a_temperature(temperature: float) -> None:
    expected = np.random.default_rng(2).dirichlet(np.full(8, 1.0), 400)
    got = expected ** (1 / temperature)
    got /= got.sum(axis=1, keepdims=True)
    assert metrics.repair_temperature(expected, got) == pytest.approx(1 / temperature, rel=1e-9)


def test_temperatures_at_probabilities_of_zero_and_one() -> None:
    certain, flat = np.eye(8), np.full((8, 8), 0.125)
    assert metrics.temperature(certain, np.arange(8)) == 0.01  # never wrong: it could be surer still
    assert metrics.temperature(certain, (np.arange(8) + 1) % 8) == 100.0  # always wrong: never unsure enough
    assert metrics.temperature(flat, np.arange(8)) == 1.0  # no temperature changes it
    assert metrics.repair_temperature(certain, certain) == pytest.approx(1.0, abs=1e-9)
    assert metrics.repair_temperature(flat, certain) == 100.0
    half = np.where(np.arange(8)[:, None] < 4, certain, np.roll(certain, 1, axis=1))  # wrong on half
    # p(right) = 1/2 where 27.6 / T is log(7): the wrong class is at the floor like the other six
    assert metrics.temperature(half, np.arange(8)) == pytest.approx(-np.log(1e-12) / np.log(7), rel=1e-9)


def test_one_face_has_a_temperature() -> None:
    p = np.array([[0.6, 0.3, 0.1]])
    assert metrics.temperature(p, np.array([0])) == 0.01
    assert metrics.repair_temperature(p, p) == pytest.approx(1.0, abs=1e-12)


@settings(max_examples=20)
@given(seed=seeds)
def test_embedding_cosine_agrees_with_scipy(seed: int) -> None:
    a, b = np.random.default_rng(seed).normal(size=(2, 20, 12)).astype(np.float32)
    expected = [1.0 - cosine(*pair) for pair in zip(a.astype(float), b.astype(float), strict=True)]
    np.testing.assert_allclose(metrics.embedding_cosine(a, b), expected, rtol=1e-9, atol=1e-12)


def test_embedding_cosine_at_its_ends() -> None:
    a = np.array([[1.0, 2.0], [1.0, 2.0], [3.0, 4.0], [0.0, 0.0], [0.0, 0.0]])
    b = np.array([[2.0, 4.0], [-1.0, -2.0], [-4.0, 3.0], [0.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(metrics.embedding_cosine(a, b), [1.0, -1.0, 0.0, 1.0, 0.0], rtol=0, atol=1e-15)
    assert (np.abs(metrics.embedding_cosine(a * 1e100, b * 1e-100)) <= 1.0).all()
