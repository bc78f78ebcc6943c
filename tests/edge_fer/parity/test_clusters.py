"""Figures of embeddings, anchors and spreads against scikit-learn, or a plain loop over the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import calinski_harabasz_score, confusion_matrix, davies_bouldin_score, roc_auc_score

from edge_fer.parity import metrics

CLOSE = {"rtol": 1e-9, "atol": 1e-12}
seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, faces=st.integers(12, 120), width=st.integers(1, 20))
def test_cluster_indices_agree_with_scikit_learn(seed: int, faces: int, width: int) -> None:
    generator = np.random.default_rng(seed)
    labels = np.concatenate(
        [[0, 3, 7], generator.choice([0, 3, 7], faces - 3)]
    )  # classes without faces between
    embeddings = (generator.normal(size=(faces, width)) + 0.3 * labels[:, None]).astype(np.float32)
    exact = embeddings.astype(np.float64)
    np.testing.assert_allclose(
        metrics.davies_bouldin(embeddings, labels), davies_bouldin_score(exact, labels), rtol=1e-6
    )
    np.testing.assert_allclose(
        metrics.calinski_harabasz(embeddings, labels), calinski_harabasz_score(exact, labels), rtol=1e-6
    )


def test_cluster_indices_where_there_are_none() -> None:
    points = np.random.default_rng(0).normal(size=(4, 3))
    one_class, all_different = np.zeros(4, np.int64), np.arange(4)
    assert np.isnan(metrics.davies_bouldin(points, one_class))
    assert np.isnan(metrics.calinski_harabasz(points, one_class))
    assert np.isnan(metrics.calinski_harabasz(points, all_different))
    assert metrics.davies_bouldin(points, all_different) == 0.0  # classes of one face do not scatter
    twice = np.repeat(points[:2], 2, axis=0)
    assert np.isnan(metrics.calinski_harabasz(twice, np.array([0, 0, 1, 1])))


def test_classes_in_one_place_cannot_be_told_apart() -> None:
    points = np.array([[-1.0], [1.0], [-1.0], [1.0]])
    assert metrics.davies_bouldin(points, np.array([0, 0, 1, 1])) == np.inf


@settings(max_examples=20)
@given(seed=seeds)
def test_error_shares_are_those_of_the_confusion_matrix(seed: int) -> None:
    generator = np.random.default_rng(seed)
    probabilities, labels = generator.dirichlet(np.ones(5), 60), generator.integers(0, 4, 60)
    matrix = confusion_matrix(labels, probabilities.argmax(axis=1), labels=range(5))
    wrong = [sum(matrix[i]) - matrix[i, i] for i in range(5)]
    shares = metrics.error_shares(probabilities, labels)
    np.testing.assert_allclose(shares, np.array(wrong) / sum(wrong), **CLOSE)
    assert shares.sum() == pytest.approx(1.0)


def test_a_model_without_errors_has_no_shares_of_them() -> None:
    assert np.isnan(metrics.error_shares(np.eye(3), np.arange(3))).all()


def test_spread_of_every_face() -> None:
    probabilities = np.random.default_rng(1).dirichlet(np.ones(8), 5).astype(np.float32)
    found = metrics.spread(probabilities)
    for face, row in enumerate(probabilities.astype(float).tolist()):
        mean = sum(row) / 8
        assert found.highest[face] == max(row)
        assert found.lowest[face] == min(row)
        deviation = (sum((p - mean) ** 2 for p in row) / 8) ** 0.5
        assert found.deviation[face] == pytest.approx(deviation, rel=1e-9)
    # What the supplement's Fig. 4 could at most show for eight classes: one of them certain.
    assert metrics.spread(np.eye(8)[:1]).deviation[0] == pytest.approx(0.330719, abs=1e-6)


def test_nearest_anchors_are_counted_class_by_class() -> None:
    nearest = np.array([0, 5, 5, 2, 5])
    np.testing.assert_array_equal(metrics.nearest_counts(nearest, 2, 3), [[1, 0, 1], [0, 0, 3]])
    np.testing.assert_array_equal(metrics.nearest_counts(nearest[:0], 2, 3), np.zeros((2, 3)))
    for wrong in (-1, 6):
        with pytest.raises(ValueError, match=r"expected anchors 0\.\.5"):
            metrics.nearest_counts(np.array([0, wrong]), 2, 3)


def test_rms_is_per_dimension() -> None:
    values = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(metrics.rms(values), [np.sqrt(12.5), 0.0], **CLOSE)
    wide = np.full((2, 3, 400), 7.0)  # the width does not matter
    np.testing.assert_allclose(metrics.rms(wide), np.full((2, 3), 7.0), **CLOSE)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, faces=st.integers(2, 60), levels=st.integers(1, 20))
def test_auroc_agrees_with_scikit_learn_with_ties(seed: int, faces: int, levels: int) -> None:
    generator = np.random.default_rng(seed)
    values, positive = generator.integers(0, levels, faces) / levels, generator.random(faces) < 0.4
    if positive.all() or not positive.any():
        assert np.isnan(metrics.auroc(values, positive))
    else:
        assert metrics.auroc(values, positive) == pytest.approx(roc_auc_score(positive, values))
