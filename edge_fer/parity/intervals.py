"""How sure a figure of a sampled set is: exact binomial bounds, McNemar's test, paired bootstrap, set sizes.

Every interval is a pair of one-sided bounds, each at the given confidence, so a gate reads either end alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """The paired bootstrap of a report, with room for faces of a kind that the set does not hold.

    Resampling a set in which nothing was lost loses nothing, however small the set: its interval has no width
    and would prove anything. So the world is taken to be a mixture: mostly faces like those of the set, whose
    unknown mix is the Bayesian bootstrap of Rubin (1981, The Annals of Statistics 9(1)), and a share like
    none of them, each as bad (for the other bound: as good) as a face can be. With n faces the mix has the
    law Dirichlet(1, ..., 1) and the unseen share is Beta(1, n), as if one more face had been drawn and were
    the worst. For a mean of bounded values this is the bound of Learned-Miller & Thomas (2019,
    arXiv:1905.06208); for a share of faces it is that of Clopper & Pearson, and without a single event the
    rule of three.

    Attributes:
        confidence: of each one-sided bound.
        resamples: how many.
        seed: of the generators; the same seed gives the same intervals.
    """

    confidence: float = CONFIDENCE
    resamples: int = RESAMPLES
    seed: int = 0

    def weights(self, faces: int) -> Iterator[NDArray[np.float64]]:
        """Yield the resamples as (faces,) float64 weights that sum to 1.

        The same weights weigh both models of a comparison, which is what makes it paired. One resample is
        held at a time, so memory grows with `faces` only.
        """
        generator = self._generator(0)
        for _ in range(self.resamples):
            drawn = generator.standard_exponential(faces)
            yield drawn / drawn.sum()

    def cells(self, counts: Sequence[int]) -> NDArray[np.float64]:
        """Return the resamples of a figure that rests on a few counts, (resamples, len(counts)) float64.

        A row is the share of each count: the sums of its faces' weights, drawn at once (gamma variates add
        up), so the time does not depend on the number of faces.
        """
        drawn = self._generator(0).standard_gamma(counts, (self.resamples, len(counts)))
        return np.asarray(drawn / drawn.sum(axis=1, keepdims=True))

    def unseen(self, faces: int) -> NDArray[np.float64]:
        """Return the share of unseen faces in each resample, (resamples,) float64 of the law Beta(1, faces).

        It is independent of the mix of the seen faces, and drawn as shuffled, evenly spaced quantiles: where
        nothing happened, the bound does not depend on the seed.
        """
        spaced = (np.arange(self.resamples) + 0.5) / self.resamples
        return np.asarray(-np.expm1(np.log1p(-self._generator(1).permutation(spaced)) / faces))

    def bounds(self, lower: NDArray[np.float64], upper: NDArray[np.float64]) -> Interval:
        """Return the one-sided bounds of a figure from its resamples with the worst and the best unseen."""
        # Hazen's positions are those of `unseen`: the bound is its exact quantile
        low = np.quantile(lower, 1.0 - self.confidence, method="hazen")
        return float(low), float(np.quantile(upper, self.confidence, method="hazen"))

    def mean(self, values: NDArray[np.float64], lowest: float, highest: float) -> Interval:
        """Bound the mean of a figure of single faces, (N,) float64, that lies in `lowest`..`highest`."""
        seen = np.array([weights @ values for weights in self.weights(len(values))])
        return self._mixed(seen, len(values), lowest, highest)

    def change(
        self, value: float, statistic: Callable[[NDArray[np.float64]], float], faces: int, span: float
    ) -> Interval:
        """Bound the change of a figure that resampling biases, such as the ECE, which grows with noise.

        The resamples are reflected about the measured change (Davison & Hinkley 1997, eq. 5.6), which takes
        out the bias that their percentiles would count twice.

        Args:
            value: the change on the set.
            statistic: the change on a resample, given its weights.
            faces: of the set.
            span: how much a share of one of ruined faces changes the figure by at most.
        """
        seen = 2.0 * value - np.array([statistic(weights) for weights in self.weights(faces)])
        return self._mixed(seen, faces, -span, span)

    def difference(self, lost: int, gained: int, faces: int) -> Interval:
        """Bound the change of a share of faces, -1..1, of which `lost` left it and `gained` came."""
        share = self.cells((lost, gained, faces - lost - gained))
        return self._mixed(share[:, 1] - share[:, 0], faces, -1.0, 1.0)

    def ratio(self, both: int, lost: int, gained: int, neither: int) -> Interval:
        """Bound the ratio of two accuracies on the same faces.

        Args:
            both: faces both models have right.
            lost: right in the reference only.
            gained: right in the bundle only; the reference has at least one face right.
            neither: wrong in both.
        """
        share = self.cells((both, lost, gained, neither))
        unseen = self.unseen(both + lost + gained + neither)
        reference, bundle = ((1.0 - unseen) * (share[:, 0] + share[:, k]) for k in (1, 2))
        return self.bounds(bundle / (reference + unseen), (bundle + unseen) / reference)

    def _mixed(self, seen: NDArray[np.float64], faces: int, lowest: float, highest: float) -> Interval:
        unseen = self.unseen(faces)
        kept = (1.0 - unseen) * seen
        return self.bounds(kept + unseen * lowest, kept + unseen * highest)

    def _generator(self, stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self.seed, stream]))


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
