"""Recall by class and its paired change, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.stats import binomtest
from sklearn.metrics import recall_score

from edge_fer.labels import LABELS
from edge_fer.parity.gates import Thresholds
from edge_fer.parity.rates import change_interval
from edge_fer.parity.recall import recall_rows
from tests.edge_fer.parity.answers import answers, certain, seeds

LIMITS = Thresholds()


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_recalls_agree_with_scikit_learn(seed: int) -> None:
    reference, outputs = answers(seed, unlabelled=0.0)
    labels = reference.labels
    rows = recall_rows(reference.probabilities, outputs.probabilities, labels, LABELS, LIMITS)
    assert [row["label"] for row in rows] == list(LABELS)
    assert sum(row["faces"] for row in rows) == len(labels)
    for prefix, side in (("", outputs), ("reference_", reference)):
        top = side.probabilities.argmax(axis=1)
        expected = recall_score(labels, top, labels=range(8), average=None, zero_division=np.nan)
        got = [np.nan if row[f"{prefix}recall"] is None else row[f"{prefix}recall"] for row in rows]
        np.testing.assert_allclose(got, expected, atol=1e-12)


def test_a_class_is_compared_face_by_face() -> None:
    labels = np.array([0] * 10 + [1] * 3)
    expected = certain([0] * 8 + [1] * 2 + [1] * 3)
    got = certain([0] * 5 + [2] * 3 + [0, 1] + [1] * 3)
    rows = recall_rows(expected, got, labels, LABELS, LIMITS)
    assert (rows[0]["faces"], rows[0]["recall"], rows[0]["reference_recall"]) == (10, 0.6, 0.8)
    assert rows[0]["change"] == pytest.approx(-0.2)
    assert rows[0]["change_interval"] == change_interval(3, 1, 10, LIMITS)
    for key, hits in (("interval", 6), ("reference_interval", 8)):
        exact = binomtest(hits, 10).proportion_ci(0.95, method="exact")
        assert rows[0][key] == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert rows[1]["change"] == 0.0


def test_a_class_without_faces_has_no_recall_and_one_of_150_is_gated() -> None:
    labels = np.array([0] * 150 + [1] * 149)
    rows = recall_rows(certain(labels.tolist()), certain(labels.tolist()), labels, LABELS, LIMITS)
    assert [row["gated"] for row in rows] == [True] + [False] * 7
    absent = {key: value for key, value in rows[7].items() if key not in ("label", "faces", "gated")}
    assert rows[7]["faces"] == 0
    assert len(absent) == 6 and set(absent.values()) == {None}


def test_one_face() -> None:
    row = recall_rows(certain([3]), certain([2]), np.array([3]), LABELS, LIMITS)[3]
    assert (row["recall"], row["reference_recall"], row["change"]) == (0.0, 1.0, -1.0)
