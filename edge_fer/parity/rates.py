"""Shares of faces as a report shows them to people: with a two-sided interval, None where there are no faces.

The bounds of a gate are one-sided (see `intervals`); of the same figure they lie a little closer.
"""

from __future__ import annotations

from dataclasses import replace

from edge_fer.parity.gates import Thresholds
from edge_fer.parity.intervals import Interval, clopper_pearson


def share(count: int, total: int) -> float | None:
    """Return `count` / `total`; None for a total of 0."""
    return count / total if total else None


def share_interval(count: int, total: int, confidence: float) -> Interval | None:
    """Return the exact two-sided interval of a share (Clopper & Pearson 1934); None for a total of 0."""
    return clopper_pearson(count, total, confidence, two_sided=True) if total else None


def change_interval(lost: int, gained: int, total: int, limits: Thresholds) -> Interval | None:
    """Return the two-sided interval of the paired change (`gained` - `lost`) / `total`; None for no faces.

    Args:
        lost: faces right before and wrong after.
        gained: wrong before and right after.
        total: all faces, also those that did not change.
        limits: the confidence and the settings of the bootstrap.
    """
    if total == 0:
        return None
    two_sided = replace(limits.bootstrap, confidence=(1.0 + limits.confidence) / 2.0)
    return two_sided.difference(lost, gained, total)
