"""Percentiles of a stream: the same as those of all its values at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrate.tails import OUTSIDE, Tails

values = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(st.lists(values, min_size=1, max_size=6), st.sampled_from([0.0, 0.01, 0.1, 0.3]))
def test_a_stream_has_the_percentiles_of_its_values(parts: list[list[float]], outside: float) -> None:
    everything = np.sort(np.concatenate([np.array(part, np.float32) for part in parts]))
    tails = Tails(len(everything), outside)
    for part in parts:
        tails.add(np.array(part, np.float32))
    left_out = int(len(everything) * outside)
    assert tails.range() == (everything[left_out], everything[-1 - left_out])


def test_a_rare_outlier_is_left_out_and_a_frequent_one_is_not() -> None:
    count = int(3 / OUTSIDE)
    flat = np.zeros(count, np.float32)
    flat[:2], flat[10:20] = 1e9, -7
    tails = Tails(count)
    for part in np.array_split(flat, 7):
        tails.add(part.reshape(-1, 1))
    assert tails.range() == (-7.0, 0.0)


def test_only_the_tails_are_kept() -> None:
    tails = Tails(1_000_000)
    for _ in range(10):
        tails.add(np.arange(100_000, dtype=np.float32))
    assert len(tails.highest) == len(tails.negated_lowest) == 1_000_000 * OUTSIDE + 1
    assert tails.range() == pytest.approx((0, 99_999), abs=1)
