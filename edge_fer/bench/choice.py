"""Which of the measured bundles to take, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edge_fer.bench.measure import Measured

NOISE = 0.02
"""Bundles whose medians differ by less are equally fast, however sure the difference is."""

_CLEAR = 1.96  # standard errors: an interval of 95 %


class Choice(NamedTuple):
    """The place in the list of the bundle recommended, None when there is none, and why in one sentence."""

    place: int | None
    reason: str


def choose(measured: Sequence[Measured]) -> Choice:
    """Recommend the fastest bundle whose certificate has not failed; of equally fast ones the smallest.

    A bundle without a certificate comes after those with one, and untrained weights come last.

    Args:
        measured: at least one bundle.
    """
    tiers = [_tier(one) for one in measured]
    best = min((tier for tier in tiers if tier is not None), default=None)
    if best is None:
        return Choice(None, "every certificate has failed: export again with other settings")
    eligible = [index for index, tier in enumerate(tiers) if tier == best]
    fastest = min(eligible, key=lambda index: measured[index].percentile_ms(50))
    equal = [i for i in eligible if i == fastest or not _is_slower(measured[i], measured[fastest])]
    index = min(equal, key=lambda i: (measured[i].candidate.size_bytes, measured[i].percentile_ms(50)))
    reason = _reason(measured, index, equal, eligible)
    return Choice(index, "; ".join([reason, *_passed_over(measured, tiers, best, index)]))


def _tier(one: Measured) -> int | None:
    """Return how far a bundle may be trusted, 0 the most; None when it must not be recommended."""
    if one.candidate.verdict == "failed":
        return None
    if one.candidate.spec.untrained:
        return 2
    return 1 if one.candidate.verdict == "none" else 0


def _is_slower(one: Measured, other: Measured) -> bool:
    """Tell whether `one` is slower beyond noise: by the ratios of the rounds that lie beside each other."""
    ratios = np.sort([np.median(a) / np.median(b) for a, b in zip(one.rounds, other.rounds, strict=True)])
    # The order statistic below which the median lies in 2.5 % of samples, by the binomial's normal form.
    lowest = ratios[max(0, int(len(ratios) / 2 - _CLEAR * np.sqrt(len(ratios)) / 2))]
    return bool(lowest > 1 and np.median(ratios) > 1 + NOISE)


def _reason(measured: Sequence[Measured], index: int, equal: list[int], eligible: list[int]) -> str:
    one = measured[index]
    verdict = "without a certificate" if one.candidate.verdict == "none" else one.candidate.verdict
    trust = "its weights are untrained, so only speed speaks" if one.candidate.spec.untrained else verdict
    if len(measured) == 1:
        return f"the only bundle measured ({trust})"
    if len(equal) > 1:
        return f"the smallest of {len(equal)} that are equally fast within noise ({trust})"
    if len(eligible) == 1:
        return f"the only one that can be recommended ({trust})"
    others = [measured[i].percentile_ms(50) for i in eligible if i != index]
    return f"the fastest, {min(others) / one.percentile_ms(50):.2f}x the speed of the next ({trust})"


def _passed_over(
    measured: Sequence[Measured], tiers: Sequence[int | None], best: int, chosen: int
) -> list[str]:
    """Say why bundles that are faster than the chosen one are not recommended."""
    texts = []
    for one, tier in zip(measured, tiers, strict=True):
        if tier == best or one.percentile_ms(50) >= measured[chosen].percentile_ms(50):
            continue
        why = {None: "its certificate failed", 1: "it has no certificate"}.get(
            tier, "its weights are untrained"
        )
        texts.append(f"{one.candidate.path.name} is faster, but {why}")
    return texts
