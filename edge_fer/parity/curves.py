"""What the plots of a report draw, already binned: so that a report of any size stays small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_fer.parity import metrics, risk
from edge_fer.parity.metrics import FloatArray, IntArray

if TYPE_CHECKING:
    from edge_fer.engines.base import Outputs
    from edge_fer.samples import Reference

DIVERGENCE_EDGES = tuple(10.0 ** (step / 4) for step in range(-33, 1))
"""In nat, four to the decade; the first bin takes all below 1e-8, where float32 rounds, and zero itself."""
CONFIDENCE_BINS = 40
RELIABILITY_BINS = 20
MOST_FLIPS = 300
"""Flips that are drawn one by one; of more, as many evenly spread over the faces."""


def curves(reference: Reference, outputs: Outputs) -> dict[str, object]:
    """Bin everything a report plots; what needs labels takes the labelled faces, None when there are none."""
    expected, got = reference.probabilities, outputs.probabilities
    known = np.flatnonzero(reference.labels >= 0)
    labels = reference.labels[known]
    labelled = len(known) > 0
    return {
        "calibration": calibration_bins(got[known], labels) if labelled else None,
        "reference_calibration": calibration_bins(expected[known], labels) if labelled else None,
        "risk_coverage": _risk_coverage(reference, outputs, known) if labelled else None,
        "divergence": {
            "edges": list(DIVERGENCE_EDGES),
            "counts": _histogram(metrics.jensen_shannon(expected, got), DIVERGENCE_EDGES).tolist(),
        },
        "confidence": confidence_grid(expected, got),
        "reliability": _reliability_bins(reference, outputs),
    }


def calibration_bins(probabilities: FloatArray, labels: IntArray) -> list[dict[str, float]]:
    """Return the mean confidence, accuracy and share of faces of each bin of the ECE, least sure first.

    The bins are those of `metrics.CalibrationCurve`: of exactly equal mass, faces on a border and runs of
    equal confidence shared in proportion. So the ECE is the sum of share * abs(confidence - accuracy).

    Args:
        probabilities: (N, C) distributions of one model.
        labels: (N,) true labels, none missing.
    """
    curve = metrics.CalibrationCurve.of(probabilities, labels)
    top = np.max(probabilities, axis=1)[curve.order]
    right = metrics.correct(probabilities, labels)[curve.order]
    # Both axes times `bins`: whole numbers, so that a bin with all faces right has an accuracy of exactly 1.
    mass = np.append(0.0, (curve.ends + 1.0) * curve.bins)
    borders = np.arange(curve.bins + 1.0) * len(labels)

    def means(values: NDArray[np.floating[Any]] | NDArray[np.bool_]) -> list[float]:
        sums = np.append(0.0, np.cumsum(values, dtype=np.float64)[curve.ends] * curve.bins)
        inside: list[float] = (np.diff(np.interp(borders, mass, sums)) / len(labels)).tolist()
        return inside

    return [
        {"confidence": confidence, "accuracy": accuracy, "share": 1.0 / curve.bins}
        for confidence, accuracy in zip(means(top), means(right), strict=True)
    ]


def confidence_grid(expected: FloatArray, got: FloatArray) -> dict[str, object]:
    """Count faces by the reference's top probability and the bundle's probability of the same label.

    Args:
        expected: (N, C) distributions of the float checkpoint.
        got: (N, C) distributions of the bundle.

    Returns:
        `edges` of both axes; `counts`, one list per bin of the reference; `flips`, at most `MOST_FLIPS` pairs
        of the two probabilities.
    """
    before = metrics.top1(expected)[:, None]
    x, y = (np.take_along_axis(side, before, axis=1)[:, 0].astype(np.float64) for side in (expected, got))
    edges = _unit_edges(CONFIDENCE_BINS)
    rows, columns = (_bin(side, edges) for side in (x, y))
    cells = np.bincount(rows * CONFIDENCE_BINS + columns, minlength=CONFIDENCE_BINS**2)
    changed = np.flatnonzero(metrics.flips(expected, got))
    if len(changed) > MOST_FLIPS:
        changed = changed[np.arange(MOST_FLIPS) * len(changed) // MOST_FLIPS]
    return {
        "edges": list(edges),
        "counts": cells.reshape(CONFIDENCE_BINS, CONFIDENCE_BINS).tolist(),
        "flips": np.stack([x[changed], y[changed]], axis=1).tolist(),
    }


def _risk_coverage(reference: Reference, outputs: Outputs, known: NDArray[np.int64]) -> dict[str, object]:
    labels = reference.labels[known]
    (coverage, after), (_, before) = (
        risk.risk_coverage(metrics.correct(side.probabilities[known], labels), side.reliability[known])
        for side in (outputs, reference)
    )
    return {"coverage": coverage.tolist(), "risk": after.tolist(), "reference_risk": before.tolist()}


def _reliability_bins(reference: Reference, outputs: Outputs) -> dict[str, object]:
    edges = _unit_edges(RELIABILITY_BINS)
    after, before = (_histogram(side.reliability, edges).tolist() for side in (outputs, reference))
    return {"edges": list(edges), "counts": after, "reference_counts": before}


def _unit_edges(bins: int) -> tuple[float, ...]:
    return tuple(edge / bins for edge in range(bins + 1))


def _histogram(values: FloatArray, edges: tuple[float, ...]) -> NDArray[np.int64]:
    """Count the values in each bin; NaN is in none."""
    return np.bincount(_bin(values[~np.isnan(values)], edges), minlength=len(edges) - 1)


def _bin(values: FloatArray, edges: tuple[float, ...]) -> NDArray[np.int64]:
    """Return the bin of each value; a border belongs to the bin above, what lies outside to the nearest."""
    return np.searchsorted(edges[1:-1], values.astype(np.float64), side="right")
