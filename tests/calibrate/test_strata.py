"""The order of the choice: every prefix balanced over classes and, within each, over confidence."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibrate.strata import BINS, stratified_order


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 7), st.floats(0, 1, width=32)), max_size=80), st.integers(0, 2**32))
def test_every_prefix_is_balanced_over_classes_and_their_quantiles(
    faces: list[tuple[int, float]], seed: int
) -> None:
    labels = np.array([label for label, _ in faces], np.int64)
    confidence = np.array([score for _, score in faces], np.float32)
    order = stratified_order(labels, seed, confidence)
    assert sorted(order) == list(range(len(faces)))
    assert order == stratified_order(labels, seed, confidence)
    assert [labels[face] for face in order] == [labels[face] for face in stratified_order(labels, seed)]
    for label in np.unique(labels):
        check_spread([face for face in order if labels[face] == label], confidence)


def check_spread(taken: list[int], confidence: NDArray[np.float32]) -> None:
    """Check that the quantiles of a class take turns: no bin is ahead of another that still has faces."""
    ranked = np.array(sorted(taken, key=lambda face: (confidence[face], face)))
    bins = {int(face): number for number, part in enumerate(np.array_split(ranked, BINS)) for face in part}
    available, so_far = Counter(bins.values()), Counter[int]()
    for face in taken:
        so_far[bins[face]] += 1
        lasting = [so_far[number] for number in available if so_far[number] < available[number]]
        assert not lasting or max(so_far.values()) - min(lasting) <= 1


@pytest.mark.parametrize("confidence", [None, np.linspace(0, 1, 50, dtype=np.float32)])
def test_the_seed_matters(confidence: NDArray[np.float32] | None) -> None:
    labels = np.zeros(50, np.int64)
    orders = [stratified_order(labels, seed, confidence) for seed in (0, 1)]
    assert orders[0] != orders[1] and sorted(orders[0]) not in orders
