"""Shares and paired changes with their two-sided intervals, against scipy and by counting."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest, multinomial

from edge_fer.parity.gates import Thresholds
from edge_fer.parity.rates import change_interval, share, share_interval

LIMITS = Thresholds()


@pytest.mark.parametrize(("count", "total"), [(0, 1), (1, 1), (0, 40), (40, 40), (3, 40), (977, 3553)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_interval_of_a_share_is_the_exact_one(count: int, total: int, confidence: float) -> None:
    assert share(count, total) == count / total
    expected = binomtest(count, total).proportion_ci(confidence, method="exact")
    assert share_interval(count, total, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_without_faces_there_is_no_share() -> None:
    assert share(0, 0) is share_interval(0, 0, 0.95) is change_interval(0, 0, 0, LIMITS) is None


@pytest.mark.parametrize(
    ("lost", "gained", "total"), [(0, 0, 1), (1, 0, 1), (0, 9, 9), (7, 1, 21), (12, 30, 400)]
)
def test_a_change_lies_in_its_interval(lost: int, gained: int, total: int) -> None:
    interval = change_interval(lost, gained, total, LIMITS)
    assert interval is not None
    assert -1.0 <= interval[0] <= (gained - lost) / total <= interval[1] <= 1.0


def test_the_interval_of_a_change_is_wider_than_the_bounds_of_a_gate() -> None:
    one_sided = LIMITS.bootstrap.difference(12, 30, 400)
    two_sided = change_interval(12, 30, 400, LIMITS)
    assert two_sided is not None
    assert two_sided[0] < one_sided[0] and one_sided[1] < two_sided[1]


@pytest.mark.parametrize("rates", [(0.0, 0.0), (0.02, 0.0), (0.05, 0.05), (0.3, 0.1), (0.5, 0.5)])
def test_a_change_is_covered_as_often_as_promised(rates: tuple[float, float]) -> None:
    """Weigh every outcome of 16 faces; without unseen faces (0.02, 0) would be covered in 28 % only."""
    faces, covered = 16, 0.0
    for lost in range(faces + 1):
        for gained in range(faces + 1 - lost):
            interval = change_interval(lost, gained, faces, LIMITS)
            assert interval is not None
            if interval[0] <= rates[1] - rates[0] <= interval[1]:
                cells = [lost, gained, faces - lost - gained]
                covered += multinomial.pmf(cells, faces, [*rates, 1 - sum(rates)])
    assert covered > 0.95
