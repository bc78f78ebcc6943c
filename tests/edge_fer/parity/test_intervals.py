"""Bounds and tests against scipy, and the bootstrap against its own definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binomtest

from edge_fer.parity import intervals


@settings(max_examples=60)
@given(total=st.integers(0, 4000), share=st.floats(0, 1), two_sided=st.booleans())
def test_clopper_pearson_agrees_with_the_beta_quantile(total: int, share: float, two_sided: bool) -> None:
    count = round(share * total)
    error = 0.025 if two_sided else 0.05
    lower, upper = intervals.clopper_pearson(count, total, two_sided=two_sided)
    assert lower == pytest.approx(beta.ppf(error, count, total - count + 1) if count else 0.0, abs=1e-9)
    assert upper == pytest.approx(
        beta.ppf(1 - error, count + 1, total - count) if count < total else 1.0, abs=1e-9
    )


@pytest.mark.parametrize(("count", "total"), [(0, 50), (50, 50), (1, 1), (0, 1), (0, 0), (300, 30_000)])
def test_clopper_pearson_at_its_ends(count: int, total: int) -> None:
    lower, upper = intervals.clopper_pearson(count, total)
    assert lower == (0.0 if count == 0 else pytest.approx(beta.ppf(0.05, count, total - count + 1), abs=1e-9))
    assert upper == (
        1.0 if count == total else pytest.approx(beta.ppf(0.95, count + 1, total - count), abs=1e-9)
    )


@pytest.mark.parametrize(("count", "total"), [(-1, 5), (6, 5)])
def test_clopper_pearson_refuses_impossible_counts(count: int, total: int) -> None:
    with pytest.raises(ValueError, match="count <= total"):
        intervals.clopper_pearson(count, total)


@settings(max_examples=60)
@given(lost=st.integers(0, 500), gained=st.integers(0, 500))
def test_mcnemar_agrees_with_the_binomial_test(lost: int, gained: int) -> None:
    expected = binomtest(lost, lost + gained, 0.5).pvalue if lost + gained else 1.0
    assert intervals.mcnemar_exact(lost, gained) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_mcnemar_far_from_even_does_not_overflow() -> None:
    assert intervals.mcnemar_exact(0, 5000) == pytest.approx(0.0, abs=1e-300)


def test_resamples_are_seeded_and_keep_the_number_of_faces() -> None:
    first, again = (list(intervals.bootstrap_counts(40, 5, seed=7)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert [counts.sum() for counts in first] == [40] * 5
    assert not np.array_equal(first, list(intervals.bootstrap_counts(40, 5, seed=8)))


def test_bootstrap_spread_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(1).normal(size=400)
    samples = intervals.bootstrap(lambda counts: float(counts @ values) / 400, 400, 4000)
    assert samples.mean() == pytest.approx(values.mean(), abs=0.005)
    assert samples.std() == pytest.approx(values.std() / 20, rel=0.05)


def test_ratio_resampled_by_counts_is_the_bootstrap_over_faces() -> None:
    both, lost, gained, neither = 160, 20, 10, 60
    was = np.repeat([1, 1, 0, 0], [both, lost, gained, neither])
    now = np.repeat([1, 0, 1, 0], [both, lost, gained, neither])
    by_faces = intervals.bootstrap(lambda counts: float(counts @ now) / float(counts @ was), 250, 8000)
    by_counts = intervals.bootstrap_ratio(both, lost, gained, neither, 8000)
    np.testing.assert_allclose(
        np.quantile(by_counts, [0.05, 0.5, 0.95]), np.quantile(by_faces, [0.05, 0.5, 0.95]), atol=0.004
    )


def test_ratio_without_disagreement_is_exactly_one() -> None:
    assert set(intervals.bootstrap_ratio(3, 0, 0, 7).tolist()) == {1.0}


def test_basic_interval_reflects_the_percentile_interval() -> None:
    samples = np.linspace(0.0, 1.0, 1001)  # biased upwards of the value, 0.4
    assert intervals.percentile_interval(samples, 0.9) == pytest.approx((0.1, 0.9))
    assert intervals.basic_interval(0.4, samples, 0.9) == pytest.approx((-0.1, 0.7))


@pytest.mark.parametrize("rate", [0.5, 0.02, 0.005])
def test_smallest_set_without_events_is_the_first_that_passes(rate: float) -> None:
    faces = intervals.smallest_set_without(rate)
    assert intervals.clopper_pearson(0, faces)[1] <= rate < intervals.clopper_pearson(0, faces - 1)[1]


def test_smallest_set_has_a_bound_at_the_drop() -> None:
    faces = intervals.smallest_set(drop=0.008, discordant=0.03)
    assert 1.6449 * math.sqrt(0.03 / faces) == pytest.approx(0.008, rel=1e-3)
    assert intervals.smallest_set(drop=0.008, discordant=0.0) == intervals.smallest_set_without(0.008)


@pytest.mark.parametrize("rate", [0.0, 1.0, float("nan")])
def test_smallest_set_refuses_impossible_rates(rate: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        intervals.smallest_set_without(rate)
