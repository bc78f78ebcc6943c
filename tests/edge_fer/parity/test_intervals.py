"""Bounds and tests against scipy and statsmodels, and the bootstrap against its own definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binomtest, kstest

from edge_fer.parity import intervals
from edge_fer.parity.intervals import Bootstrap


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


def test_bounds_and_p_agree_with_statsmodels() -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    generator = np.random.default_rng(6)
    edges = [(0, 1, 0, 0), (1, 1, 0, 1), (0, 3553, 5, 0), (3553, 3553, 0, 400)]
    drawn = generator.integers(0, [3000, 3000, 60, 60], (40, 4)).tolist()
    for count, more, lost, gained in [(c, t - c, le, g) for c, t, le, g in edges] + drawn:
        total = max(1, count + more)
        # its interval is two-sided: the one of 90 % has our one-sided bounds of 95 %
        expected = proportion.proportion_confint(count, total, alpha=0.1, method="beta")
        assert intervals.clopper_pearson(count, total) == pytest.approx(expected, abs=1e-9)
        p = tables.mcnemar([[total, lost], [gained, total]], exact=True).pvalue
        assert intervals.mcnemar_exact(lost, gained) == pytest.approx(p, rel=1e-9, abs=1e-12)


def test_resamples_are_seeded_and_weigh_one_in_all() -> None:
    first, again = (list(Bootstrap(resamples=5, seed=7).weights(40)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose([weights.sum() for weights in first], 1.0, rtol=1e-12)
    assert not np.array_equal(first, list(Bootstrap(resamples=5, seed=8).weights(40)))


def test_weights_are_the_flat_dirichlet() -> None:
    drawn = np.array(list(Bootstrap(resamples=4000, seed=3).weights(20)))
    assert kstest(drawn[:, 4], beta(1, 19).cdf).pvalue > 0.01
    assert kstest(drawn[:, 2:8].sum(axis=1), beta(6, 14).cdf).pvalue > 0.01
    values = np.random.default_rng(1).normal(size=20)
    assert (drawn @ values).std() == pytest.approx(values.std() / np.sqrt(21), rel=0.05)  # Rubin 1981


@pytest.mark.parametrize("faces", [1, 50, 3553])
def test_the_unseen_share_has_the_quantiles_of_its_law_whatever_the_seed(faces: int) -> None:
    for seed in (0, 1):
        unseen = Bootstrap(seed=seed).unseen(faces)
        found = np.quantile(unseen, [0.05, 0.5, 0.95], method="hazen")
        np.testing.assert_allclose(found, beta(1, faces).ppf([0.05, 0.5, 0.95]), rtol=1e-5)
    assert not np.array_equal(Bootstrap(seed=0).unseen(faces), unseen)


def test_the_unseen_share_does_not_follow_the_mix_of_the_seen() -> None:
    bootstrap = Bootstrap(resamples=4000)
    values = np.random.default_rng(0).random(60)
    seen = np.array([weights @ values for weights in bootstrap.weights(60)])
    assert abs(np.corrcoef(seen, bootstrap.unseen(60))[0, 1]) < 0.04
    cells = bootstrap.cells((5, 55))
    assert abs(np.corrcoef(cells[:, 0], bootstrap.unseen(60))[0, 1]) < 0.04


def test_counts_are_drawn_with_the_law_of_the_weights_of_their_faces() -> None:
    drawn = Bootstrap(resamples=4000).cells((160, 20, 0, 70))
    np.testing.assert_allclose(drawn.sum(axis=1), 1.0, rtol=1e-12)
    assert (drawn[:, 2] == 0.0).all()
    assert kstest(drawn[:, 1], beta(20, 230).cdf).pvalue > 0.01
    assert kstest(drawn[:, 1] + drawn[:, 3], beta(90, 160).cdf).pvalue > 0.01


def quantiles(lower: list[float], upper: list[float], confidence: float) -> tuple[float, float]:
    """Hazen's definition: the k-th of n sorted values stands at (k - 1/2) / n, straight lines between."""
    places = (np.arange(len(lower)) + 0.5) / len(lower)
    ends = ((1 - confidence, sorted(lower)), (confidence, sorted(upper)))
    low, high = (float(np.interp(share, places, values)) for share, values in ends)
    return low, high


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), faces=st.integers(1, 40))
def test_mean_interval_by_brute_force_on_the_same_resamples(seed: int, faces: int) -> None:
    values = np.random.default_rng(seed).random(faces) ** 3
    bootstrap = Bootstrap(resamples=50, seed=seed, confidence=0.9)
    lower, upper = [], []
    for weights, unseen in zip(bootstrap.weights(faces), bootstrap.unseen(faces), strict=True):
        mean = sum(float(w) * float(v) for w, v in zip(weights, values, strict=True))
        lower.append((1 - unseen) * mean + unseen * -0.5)
        upper.append((1 - unseen) * mean + unseen * 2.0)
    found = bootstrap.mean(values, -0.5, 2.0)
    assert found == pytest.approx(quantiles(lower, upper, 0.9), rel=1e-9, abs=1e-12)


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), counts=st.tuples(*[st.integers(0, 30)] * 3))
def test_difference_and_ratio_by_brute_force_on_the_same_resamples(
    seed: int, counts: tuple[int, int, int]
) -> None:
    lost, gained, neither = counts
    bootstrap, both, faces = Bootstrap(resamples=40, seed=seed), 7, 7 + lost + gained + neither
    unseen = bootstrap.unseen(faces)
    shares = bootstrap.cells((lost, gained, faces - lost - gained))
    lower = [(1 - u) * (g - le) - u for (le, g, _), u in zip(shares, unseen, strict=True)]
    upper = [(1 - u) * (g - le) + u for (le, g, _), u in zip(shares, unseen, strict=True)]
    found = bootstrap.difference(lost, gained, faces)
    assert found == pytest.approx(quantiles(lower, upper, 0.95), rel=1e-9, abs=1e-12)
    cells = bootstrap.cells((both, lost, gained, neither))
    # the unseen faces are all lost for the lower bound, all gained for the upper
    lower = [
        (1 - u) * (b + g) / ((1 - u) * (b + le) + u) for (b, le, g, _), u in zip(cells, unseen, strict=True)
    ]
    upper = [
        ((1 - u) * (b + g) + u) / ((1 - u) * (b + le)) for (b, le, g, _), u in zip(cells, unseen, strict=True)
    ]
    found = bootstrap.ratio(both, lost, gained, neither)
    assert found == pytest.approx(quantiles(lower, upper, 0.95), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("count", "faces"), [(0, 50), (1, 50), (9, 400), (400, 400), (0, 1), (1, 1)])
def test_a_share_of_faces_has_the_exact_binomial_bounds(count: int, faces: int) -> None:
    values = (np.arange(faces) < count).astype(np.float64)
    expected = intervals.clopper_pearson(count, faces)
    assert Bootstrap(resamples=20_000).mean(values, 0.0, 1.0) == pytest.approx(expected, rel=0.02, abs=1e-4)


@pytest.mark.parametrize(("lost", "gained"), [(1, 0), (4, 0), (5, 0), (9, 2), (30, 20)])
def test_whether_accuracy_fell_at_all_agrees_with_the_exact_mcnemar_test(lost: int, gained: int) -> None:
    """P(ratio >= 1) with the best unseen is the one-sided exact p: Beta(gained + 1, lost) above one half."""
    p = binomtest(lost, lost + gained, 0.5, alternative="greater").pvalue
    for confidence, excluded in ((1 - 0.8 * p, False), (1 - 1.25 * p, True)):
        if 0.0 < confidence < 1.0:
            bootstrap = Bootstrap(resamples=100_000, confidence=confidence)
            assert (bootstrap.difference(lost, gained, 1000)[1] < 0.0) == excluded


@pytest.mark.parametrize("faces", [1, 50, 299])
def test_nothing_lost_leaves_room_for_what_the_set_could_have_missed(faces: int) -> None:
    missed = intervals.clopper_pearson(0, faces)[1]  # the rule of three
    bootstrap = Bootstrap()
    assert bootstrap.mean(np.zeros(faces), 0.0, 1.0) == (0.0, pytest.approx(missed, rel=1e-4))
    assert bootstrap.difference(0, 0, faces) == pytest.approx((-missed, missed), rel=1e-4)
    assert bootstrap.change(0.0, lambda weights: 0.0, faces, 2.0) == pytest.approx(
        (-2 * missed, 2 * missed), rel=1e-4
    )
    lower, upper = bootstrap.ratio(faces, 0, 0, 0)
    assert (lower, upper) == pytest.approx((1 - missed, 1 / (1 - missed)), rel=1e-3)


def test_change_is_reflected_about_its_value() -> None:
    # resampling biases this figure upwards: by 0.3 and more where it measured 0.4
    values = iter(np.linspace(0.7, 0.9, 200).tolist())
    found = Bootstrap(resamples=200).change(0.4, lambda weights: next(values), 10**4, 0.0)
    assert found == pytest.approx((0.8 - 0.89, 0.8 - 0.71), abs=1e-3)


@pytest.mark.parametrize("faces", [120, 400, 1500])
def test_a_gate_at_its_threshold_is_passed_by_chance_in_one_of_twenty_sets_at_most(faces: int) -> None:
    """The accuracy really fell to 0.97 of the float accuracy: how often does the lower bound deny it?"""
    generator = np.random.default_rng(faces)
    cells = generator.multinomial(faces, [0.8 - 0.024 - 0.01, 0.034, 0.01, 0.19], size=400).tolist()
    lower = [Bootstrap(resamples=300, seed=seed).ratio(*counts)[0] for seed, counts in enumerate(cells)]
    assert np.mean(np.array(lower) >= 0.97) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)


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
