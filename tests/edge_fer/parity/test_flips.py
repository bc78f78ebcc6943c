"""Flips by direction, class and confidence, counted again face by face."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from sklearn.metrics import confusion_matrix

from edge_fer.labels import LABELS
from edge_fer.parity.flips import BANDS, Changes, flip_matrix, flips_by_class, flips_by_confidence
from edge_fer.parity.flips import flips_by_direction as by_direction
from tests.edge_fer.parity.answers import answers, certain, seeds

OUTCOMES = ("to_wrong", "to_right", "between_wrong")


def drawn(seed: int, **more: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, Changes]:
    reference, outputs = answers(seed, coarse=bool(seed % 2), **more)
    pair = reference.probabilities, outputs.probabilities
    return *pair, reference.labels, Changes.of(*pair, reference.labels)


def outcome(before: int, after: int, label: int) -> str | None:
    """Say what a face's flip did, the slow way."""
    if before == after or label < 0:
        return None
    return "to_wrong" if before == label else "to_right" if after == label else "between_wrong"


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_the_matrix_is_a_confusion_matrix_of_the_two_models(seed: int) -> None:
    expected, got, _, changes = drawn(seed)
    matrix = flip_matrix(changes, 8)
    before, after = expected.argmax(axis=1), got.argmax(axis=1)
    assert (matrix == confusion_matrix(before, after, labels=range(8))).all()
    assert matrix.sum() == len(expected)
    assert (matrix.sum(axis=1) == np.bincount(before, minlength=8)).all()
    assert matrix.sum() - np.trace(matrix) == changes.flipped.sum()


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_directions_are_the_matrix_without_its_diagonal(seed: int) -> None:
    matrix = flip_matrix(drawn(seed)[3], 8)
    directions = by_direction(matrix, LABELS)
    cells = {
        f"{a} -> {b}": matrix[i, j] for i, a in enumerate(LABELS) for j, b in enumerate(LABELS) if i != j
    }
    assert directions == {pair: count for pair, count in cells.items() if count}
    ranks = [(-count, pair) for pair, count in directions.items()]
    assert ranks == sorted(ranks)


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_classes_and_bands_count_every_face_once(seed: int) -> None:
    expected, got, labels, changes = drawn(seed)
    before, after, top = expected.argmax(axis=1), got.argmax(axis=1), expected.max(axis=1)
    bands = [sum(float(p) >= border for border in BANDS[1:-1]) for p in top]
    by_class = flips_by_class(changes, LABELS, 0.95)
    by_band = flips_by_confidence(changes, expected, 0.95)
    assert [row["label"] for row in by_class] == list(LABELS)
    assert [(row["from"], row["to"]) for row in by_band] == list(pairwise(BANDS))
    for rows, group in ((by_class, before.tolist()), (by_band, bands)):
        for index, row in enumerate(rows):
            own = [face for face, chosen in enumerate(group) if chosen == index]
            outcomes = [outcome(before[face], after[face], labels[face]) for face in own]
            flips = sum(bool(before[face] != after[face]) for face in own)
            assert (row["faces"], row["flips"]) == (len(own), flips)
            assert row["share"] == (flips / len(own) if own else None)
            assert [row[name] for name in OUTCOMES] == [outcomes.count(name) for name in OUTCOMES]
        flips = int((changes.flipped & (labels >= 0)).sum())
        assert sum(row[name] for row in rows for name in OUTCOMES) == flips


def test_a_border_belongs_to_the_band_above_and_1_to_the_last() -> None:
    assert BANDS == (0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
    expected = np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [0.0, 1.0000001, 0.0], [0.4, 0.3, 0.3]])
    rows = flips_by_confidence(Changes.of(expected, expected), expected, 0.95)
    assert [row["faces"] for row in rows] == [0, 1, 1, 0, 0, 0, 2]


def test_intervals_are_two_sided_and_absent_without_faces() -> None:
    changes = Changes.of(certain([0] * 4), certain([0, 0, 0, 1]))
    rows = flips_by_class(changes, LABELS, 0.95)
    assert rows[0]["interval"] == pytest.approx((0.0063094, 0.8058796), abs=1e-7)  # 1 of 4
    assert (rows[1]["share"], rows[1]["interval"]) == (None, None)


def test_without_labels_nobody_knows_what_a_flip_did() -> None:
    pair = certain([0, 0]), certain([0, 1])
    for labels in (None, np.array([-1, -1])):
        row = flips_by_class(Changes.of(*pair, labels), LABELS, 0.95)[0]
        assert (row["flips"], *(row[name] for name in OUTCOMES)) == (1, None, None, None)


def test_no_flip_and_nothing_but_flips() -> None:
    faces = certain([0, 1, 2])
    assert by_direction(flip_matrix(Changes.of(faces, faces), 8), LABELS) == {}
    turned = Changes.of(faces, certain([1, 2, 0]), np.array([0, 2, 5]))
    assert np.trace(flip_matrix(turned, 8)) == 0
    totals = [sum(row[name] for row in flips_by_class(turned, LABELS, 0.95)) for name in OUTCOMES]
    assert totals == [1, 1, 1]


def test_a_tie_is_no_flip_while_the_first_label_stays() -> None:
    tie = np.full((1, 8), 0.125)
    assert not Changes.of(tie, certain([0])).flipped.any()
    assert Changes.of(tie, certain([1])).flipped.all()
