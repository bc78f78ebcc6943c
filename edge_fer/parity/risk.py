"""Abstention: which faces a reliability threshold keeps, and how often the model is wrong on these.

A face is kept when its reliability is at least the threshold, so a threshold keeps faces of equal reliability
together. Where a coverage of a curve lies within such a run, the run counts in proportion, as if it were in
random order: no figure depends on the order of the faces. A reliability that is not a number is the least.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edge_fer.parity.metrics import FloatArray


def abstention_threshold(reliability: FloatArray, coverage: float) -> float:
    """Return the largest reliability at which at least this share of the faces is kept.

    Args:
        reliability: (N,) of the float model, N at least 1.
        coverage: 0..1; 0 keeps the surest face and its equals.
    """
    surest_first = np.sort(_comparable(reliability))[::-1]
    kept = max(1, math.ceil(coverage * len(surest_first) - 1e-9))  # 0.8 * 35 is above 28 by rounding alone
    return float(surest_first[kept - 1])


def risk_coverage(
    correct: NDArray[np.bool_], reliability: FloatArray, points: int = 101
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return evenly spaced coverages 0..1 and the share of wrong faces among those kept at each.

    The risk-coverage curve of El-Yaniv & Wiener (2010, JMLR 11). At coverage 0, where nothing is kept, the
    risk is that of the surest faces, which the curve tends to.

    Args:
        correct: (N,) bool, whether the model is right, N at least 1.
        reliability: (N,), higher is surer.
        points: of the curve.
    """
    coverage = np.linspace(0.0, 1.0, points)
    kept, wrong = _kept_and_wrong(correct, reliability)
    faces = np.maximum(coverage * len(correct), kept[1])  # the risk is the same throughout the first run
    return coverage, np.interp(faces, kept, wrong) / faces


def aurc(correct: NDArray[np.bool_], reliability: FloatArray) -> float:
    """Return the area under the risk-coverage curve: the mean risk of the surest 1, 2, ..., N faces, 0..1.

    Geifman & El-Yaniv (2017, NeurIPS); lower is better, 0 is a model that is never wrong.
    """
    kept, wrong = _kept_and_wrong(correct, reliability)
    faces = np.arange(1, len(correct) + 1)
    return float((np.interp(faces, kept, wrong) / faces).mean())


def _kept_and_wrong(
    correct: NDArray[np.bool_], reliability: FloatArray
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the faces kept, and the wrong ones among them, after 0, 1, ... runs of equal reliability."""
    comparable = _comparable(reliability)
    order = np.argsort(-comparable, kind="stable")
    sorted_reliability = comparable[order]
    ends = np.flatnonzero(np.append(sorted_reliability[1:] != sorted_reliability[:-1], True))
    wrong = np.cumsum(~correct[order])
    return np.append(0, ends + 1), np.append(0, wrong[ends])


def _comparable(reliability: FloatArray) -> NDArray[np.float64]:
    exact = np.asarray(reliability, dtype=np.float64)
    return np.where(np.isnan(exact), -np.inf, exact)
