"""How sure a figure of a sampled set is: exact binomial bounds, McNemar's test, paired bootstrap, set sizes.

Every interval is a pair of one-sided bounds, each at the given confidence, so a gate reads either end alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]

CONFIDENCE = 0.95
RESAMPLES = 2000


def clopper_pearson(
    count: int, total: int, confidence: float = CONFIDENCE, *, two_sided: bool = False
) -> Interval:
    """Return exact bounds of a proportion (Clopper & Pearson 1934).

    Args:
        count: successes, 0..total.
        total: trials; 0 gives the interval that says nothing, (0, 1).
        confidence: of each bound alone, or of the interval when `two_sided`.
        two_sided: split the error between the two bounds.
    """
    if not 0 <= count <= total:
        raise ValueError(f"expected 0 <= count <= total, got count {count} and total {total}")
    error = (1.0 - confidence) / (2.0 if two_sided else 1.0)
    return 1.0 - _upper_bound(total - count, total, error), _upper_bound(count, total, error)


def mcnemar_exact(lost: int, gained: int) -> float:
    """Return the two-sided exact p of a paired change: are losses and gains equally likely (McNemar 1947)?"""
    total = lost + gained
    return min(1.0, 2.0 * _tail(_log_binomials(min(lost, gained), total), total, 0.5))


def bootstrap_counts(faces: int, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """Yield seeded resamples as (faces,) int64 counts: how often each face was drawn.

    The same counts weigh both models of a comparison, which is what makes it paired. One resample is held at
    a time, so memory grows with `faces` only.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    for _ in range(resamples):
        yield np.bincount(generator.integers(0, faces, faces), minlength=faces)


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float], faces: int, resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """Evaluate `statistic` on the counts of each resample, (resamples,) float64."""
    return np.array([statistic(counts) for counts in bootstrap_counts(faces, resamples, seed)])


def bootstrap_ratio(
    both: int, lost: int, gained: int, neither: int, resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """Resample the ratio of two accuracies on the same faces, (<= resamples,) float64.

    The ratio depends on four counts only, so drawing them from their multinomial is the paired bootstrap over
    faces in constant time. Resamples in which the reference has nothing right have no ratio and are left out.

    Args:
        both: faces both models have right.
        lost: right in the reference only.
        gained: right in the bundle only.
        neither: wrong in both.
        resamples: how many.
        seed: of the generator.
    """
    cells = np.array([both, lost, gained, neither], dtype=np.int64)
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn = generator.multinomial(int(cells.sum()), cells / cells.sum(), size=resamples)
    reference = drawn[:, 0] + drawn[:, 1]
    usable = reference > 0
    ratio: NDArray[np.float64] = (drawn[usable, 0] + drawn[usable, 2]) / reference[usable]
    return ratio


def percentile_interval(samples: NDArray[np.float64], confidence: float = CONFIDENCE) -> Interval:
    """Return the one-sided bounds of a bootstrap distribution (Efron 1981)."""
    lower, upper = np.quantile(samples, [1.0 - confidence, confidence])
    return float(lower), float(upper)


def basic_interval(value: float, samples: NDArray[np.float64], confidence: float = CONFIDENCE) -> Interval:
    """Return the one-sided bounds reflected about `value` (Davison & Hinkley 1997, eq. 5.6).

    For a figure that resampling biases, such as the ECE, whose absolute values grow with noise: the
    reflection takes the bias out where the percentile interval would count it twice.
    """
    lower, upper = percentile_interval(samples, confidence)
    return 2.0 * value - upper, 2.0 * value - lower


def smallest_set_without(rate: float, confidence: float = CONFIDENCE) -> int:
    """Return how many faces without a single event put the upper bound of its rate at or below `rate`."""
    if not 0.0 < rate < 1.0:
        raise ValueError(f"expected a rate between 0 and 1, got {rate}")
    return math.ceil(math.log(1.0 - confidence) / math.log1p(-rate))


def smallest_set(drop: float, discordant: float, confidence: float = CONFIDENCE) -> int:
    """Return how many faces could show that accuracy fell by less than `drop`.

    At this size, and when accuracy did not fall at all, the expected one-sided bound of the paired difference
    (its variance is `discordant` / N) reaches `drop`. Without discordant faces it is the size of
    `smallest_set_without`.

    Args:
        drop: allowed fall of accuracy, 0..1.
        discordant: share of faces that exactly one of the two models has right, 0..1.
        confidence: of the one-sided bound.
    """
    spread = NormalDist().inv_cdf(confidence) ** 2 * discordant / drop**2
    return max(math.ceil(spread), smallest_set_without(drop, confidence))


def _upper_bound(count: int, total: int, error: float) -> float:
    """Return the p at which P(X <= count | total, p) falls to `error`, by bisection to the last bit."""
    if count == total:
        return 1.0
    coefficients = _log_binomials(count, total)
    low, high = count / total, 1.0
    while low < (middle := (low + high) / 2.0) < high:
        if _tail(coefficients, total, middle) > error:
            low = middle
        else:
            high = middle
    return high


def _log_binomials(count: int, total: int) -> NDArray[np.float64]:
    """Return log C(total, i) for i = 0..count."""
    i = np.arange(1, count + 1)
    return np.append(0.0, np.cumsum(np.log((total - i + 1) / i)))


def _tail(log_binomials: NDArray[np.float64], total: int, p: float) -> float:
    """Return P(X <= count | total, p) for the count that the coefficients end with; 0 < p < 1."""
    i = np.arange(len(log_binomials))
    return float(np.exp(log_binomials + i * math.log(p) + (total - i) * math.log1p(-p)).sum())
