"""The worst faces: which, and in which order."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from scipy.spatial.distance import jensenshannon

from edge_fer.labels import LABELS
from edge_fer.parity.worst import MOST_FACES, worst_faces
from tests.edge_fer.parity.answers import answers, answers_of, certain, seeds


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_the_worst_are_flips_first_then_the_furthest(seed: int) -> None:
    reference, outputs = answers(seed, 1 + seed % 90, noise=0.3)
    p, q = reference.probabilities, outputs.probabilities
    divergence = jensenshannon(p.astype(float), q.astype(float), axis=1) ** 2
    flipped = p.argmax(axis=1) != q.argmax(axis=1)
    expected = sorted(range(len(p)), key=lambda row: (not flipped[row], -divergence[row], row))
    found = worst_faces(reference, outputs)
    assert [row["face"] for row in found] == expected[:MOST_FACES]
    np.testing.assert_allclose([row["js"] for row in found], divergence[expected[:MOST_FACES]], atol=1e-9)
    for row in found:
        face = row["face"]
        assert row["hash"] == f"{face:064x}"
        assert row["label"] == (LABELS[reference.labels[face]] if reference.labels[face] >= 0 else None)
        assert (row["from"], row["to"]) == (LABELS[p[face].argmax()], LABELS[q[face].argmax()])
        for key, side in (
            ("reference", p),
            ("bundle", q),
            ("reference_primary", reference.primary),
            ("primary", outputs.primary),
        ):
            assert row[key] == side[face].tolist()


def test_ties_stay_in_the_order_of_the_rows() -> None:
    before, after = certain([0] * 40), certain([0] * 10 + [1] * 20 + [0] * 10)
    after[[5, 35]] = [0.5, 0.5, *[0] * 6]  # moved alike, not flipped: the first of two equals stays on top
    found = worst_faces(*answers_of([-1] * 40, before, after))
    assert [row["face"] for row in found] == [*range(10, 30), 5, 35]


def test_faces_that_did_not_move_are_not_listed() -> None:
    faces = certain([0, 1])
    assert worst_faces(*answers_of([0, 1], faces, faces)) == []
