"""Risk-coverage curves against their definition, averaged over every order of faces that are equally sure."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_fer.parity import risk

faces = st.integers(1, 40).flatmap(
    lambda count: st.tuples(
        st.lists(st.booleans(), min_size=count, max_size=count),
        st.lists(st.sampled_from([0.1, 0.2, 0.25, 0.5, 1.0]), min_size=count, max_size=count),
    )
)


def risks_of_the_surest(correct: list[bool], reliability: list[float]) -> NDArray[np.float64]:
    """Return the share of wrong faces among the surest 1..N, the mean over the orders of equal faces."""
    groups = [
        [right for right, sure in zip(correct, reliability, strict=True) if sure == level]
        for level in sorted(set(reliability), reverse=True)
    ]
    curves = []
    for chosen in product(*(list(permutations(group)) for group in groups)):
        wrong = np.cumsum([not right for group in chosen for right in group])
        curves.append(wrong / np.arange(1, len(correct) + 1))
    return np.mean(curves, axis=0)


@pytest.mark.parametrize("seed", range(12))
def test_curve_and_area_by_brute_force_over_ties(seed: int) -> None:
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, 8))
    correct = generator.random(count) < 0.6
    reliability = generator.integers(0, 3, count) / 2
    expected = risks_of_the_surest(correct.tolist(), reliability.tolist())
    assert risk.aurc(correct, reliability) == pytest.approx(expected.mean(), abs=1e-9)
    coverage, found = risk.risk_coverage(correct, reliability, points=count + 1)
    np.testing.assert_allclose(coverage, np.arange(count + 1) / count, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found[1:], expected, rtol=0, atol=1e-9)
    assert found[0] == pytest.approx(expected[0], abs=1e-9)


def test_without_ties_they_are_the_plain_definition() -> None:
    generator = np.random.default_rng(0)
    correct, reliability = generator.random(1000) < 0.8, generator.random(1000).astype(np.float32)
    surest_first = correct[np.argsort(-reliability)]
    expected = [np.mean(~surest_first[:kept]) for kept in range(1, 1001)]
    assert risk.aurc(correct, reliability) == pytest.approx(np.mean(expected), abs=1e-9)
    coverage, found = risk.risk_coverage(correct, reliability)
    assert len(coverage) == len(found) == 101
    np.testing.assert_allclose(found[1:], np.array(expected)[9::10], rtol=0, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(case=faces, seed=st.integers(0, 1000))
def test_no_figure_depends_on_the_order_of_faces(case: tuple[list[bool], list[float]], seed: int) -> None:
    correct, reliability = np.array(case[0]), np.array(case[1])
    order = np.random.default_rng(seed).permutation(len(correct))
    assert risk.aurc(correct, reliability) == pytest.approx(risk.aurc(correct[order], reliability[order]))
    curves = [
        risk.risk_coverage(*pair)[1]
        for pair in ((correct, reliability), (correct[order], reliability[order]))
    ]
    np.testing.assert_allclose(curves[0], curves[1], rtol=0, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(case=faces)
def test_the_whole_set_has_its_own_risk(case: tuple[list[bool], list[float]]) -> None:
    correct, reliability = np.array(case[0]), np.array(case[1])
    _, found = risk.risk_coverage(correct, reliability)
    assert found[-1] == pytest.approx(np.mean(~correct), abs=1e-12)
    assert ((found >= 0) & (found <= 1)).all()


@settings(max_examples=40, deadline=None)
@given(case=faces, coverage=st.floats(0, 1))
def test_threshold_is_the_largest_that_keeps_enough(
    case: tuple[list[bool], list[float]], coverage: float
) -> None:
    reliability = np.array(case[1])
    found = risk.abstention_threshold(reliability, coverage)
    assert found in case[1]
    assert np.mean(reliability >= found) >= coverage - 1e-9
    above = reliability[reliability > found]
    if len(above):
        assert np.mean(reliability >= above.min()) < coverage


def test_threshold_is_not_a_face_off_by_rounding() -> None:
    reliability = np.arange(100) / 100
    assert 0.55 * 100 > 55  # by rounding alone
    assert (reliability >= risk.abstention_threshold(reliability, 0.55)).sum() == 55
    assert (reliability >= risk.abstention_threshold(reliability, 0.551)).sum() == 56


def test_threshold_of_no_and_of_full_coverage() -> None:
    reliability = np.arange(35) / 35
    assert risk.abstention_threshold(reliability, 0.0) == 34 / 35
    assert risk.abstention_threshold(reliability, 1.0) == 0.0


def test_threshold_is_exact_for_float32() -> None:
    reliability = np.random.default_rng(1).random(100).astype(np.float32)
    assert (reliability.astype(np.float64) >= risk.abstention_threshold(reliability, 0.8)).sum() == 80


@pytest.mark.parametrize("right", [True, False])
def test_one_face(right: bool) -> None:
    correct, reliability = np.array([right]), np.array([0.4])
    assert risk.aurc(correct, reliability) == (0.0 if right else 1.0)
    assert set(risk.risk_coverage(correct, reliability)[1].tolist()) == {0.0 if right else 1.0}
    assert risk.abstention_threshold(reliability, 0.8) == 0.4


def test_a_reliability_that_is_no_number_is_the_least() -> None:
    correct, reliability = np.array([True, False, False]), np.array([0.2, np.nan, np.nan])
    assert risk.aurc(correct, reliability) == pytest.approx((0 + 1 / 2 + 2 / 3) / 3)
    assert risk.abstention_threshold(reliability, 0.3) == 0.2
