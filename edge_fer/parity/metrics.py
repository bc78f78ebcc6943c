"""Every figure of the project, as plain functions of arrays.

Knows nothing of gates, thresholds or uncertainty (see `gates` and `intervals`). The first argument is always
a distribution per face, (N, C) float, and labels are (N,) integers 0..C-1; all arithmetic is float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]

ECE_BINS = 15
NLL_FLOOR = 1e-12
JEFFREYS_SMOOTHING = 1e-6


def top1(probabilities: FloatArray) -> NDArray[np.int64]:
    """Return the index of the largest probability of each face, (N,) int64; ties go to the first."""
    return np.asarray(np.argmax(probabilities, axis=1), dtype=np.int64)


def correct(probabilities: FloatArray, labels: IntArray) -> NDArray[np.bool_]:
    """Return whether the top label of each face is the true one, (N,) bool."""
    return np.asarray(top1(probabilities) == _checked_labels(probabilities, labels))


def accuracy(probabilities: FloatArray, labels: IntArray) -> float:
    """Return the share of faces whose top label is the true one, 0..1."""
    return float(correct(probabilities, labels).mean())


def confusion(probabilities: FloatArray, labels: IntArray) -> NDArray[np.int64]:
    """Count faces by true label (rows) and top label (columns), (C, C) int64."""
    classes = probabilities.shape[1]
    cells = _checked_labels(probabilities, labels) * classes + top1(probabilities)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def recall_per_class(probabilities: FloatArray, labels: IntArray) -> NDArray[np.float64]:
    """Return the recall of each class, (C,) float64 0..1, NaN for a class without faces."""
    matrix = confusion(probabilities, labels)
    faces = matrix.sum(axis=1)
    recall = np.full(len(faces), np.nan)
    np.divide(np.diag(matrix), faces, out=recall, where=faces > 0)
    return recall


def mean_recall(probabilities: FloatArray, labels: IntArray) -> float:
    """Return the mean recall over the classes that have faces, 0..1 (balanced accuracy)."""
    return float(np.nanmean(recall_per_class(probabilities, labels)))


def macro_f1(probabilities: FloatArray, labels: IntArray) -> float:
    """Return the mean F1 over the classes that occur as a true or as a top label, 0..1."""
    matrix = confusion(probabilities, labels)
    total = matrix.sum(axis=0) + matrix.sum(axis=1)
    seen = total > 0
    return float(np.mean(2.0 * np.diag(matrix)[seen] / total[seen]))


@dataclass(frozen=True, slots=True)
class CalibrationCurve:
    """Faces sorted by confidence, ready to give the ECE of the set and of any resample of it in O(N).

    Attributes:
        order: (N,) int64, the faces from the least to the most confident.
        gaps: (N,) float64, confidence minus correctness, in that order.
        ends: (G,) int64, the last position of each run of equal confidence.
        bins: number of equal-mass bins.
    """

    order: NDArray[np.int64]
    gaps: NDArray[np.float64]
    ends: NDArray[np.int64]
    bins: int

    @classmethod
    def of(cls, probabilities: FloatArray, labels: IntArray, bins: int = ECE_BINS) -> CalibrationCurve:
        """Sort the faces of one model by the probability of their top label."""
        confidence = np.max(probabilities, axis=1).astype(np.float64)
        gaps = confidence - correct(probabilities, labels)
        order = np.argsort(confidence, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(confidence[order]) > 0, True))
        return cls(order, gaps[order], ends, bins)

    def ece(self, counts: IntArray | None = None) -> float:
        """Return the expected calibration error, 0..1, of the set or of a resample.

        Bins hold exactly equal mass: a face on a border, and a run of equal confidences, is shared between
        its bins in proportion, so that neither the order of the faces nor a remainder of N / bins changes the
        result.

        Args:
            counts: (N,) integer, how often each face occurs in the resample; None for once each.
        """
        weights = np.ones(len(self.order)) if counts is None else counts[self.order].astype(np.float64)
        mass = np.append(0.0, np.cumsum(weights)[self.ends])
        gap = np.append(0.0, np.cumsum(weights * self.gaps)[self.ends])
        borders = np.arange(self.bins + 1) * (mass[-1] / self.bins)
        return float(np.abs(np.diff(np.interp(borders, mass, gap))).sum() / mass[-1])


def ece(probabilities: FloatArray, labels: IntArray, bins: int = ECE_BINS) -> float:
    """Return the expected calibration error of the top label, 0..1 (Nguyen & O'Connor 2015)."""
    return CalibrationCurve.of(probabilities, labels, bins).ece()


def brier(probabilities: FloatArray, labels: IntArray) -> float:
    """Return the mean squared distance to the one-hot label, summed over classes, 0..2 (Brier 1950)."""
    error = np.array(probabilities, dtype=np.float64)
    error[np.arange(len(error)), _checked_labels(probabilities, labels)] -= 1.0
    return float(np.square(error).sum(axis=1).mean())


def nll(probabilities: FloatArray, labels: IntArray) -> float:
    """Return the mean negative log likelihood of the true label, in nat; probabilities floored at 1e-12."""
    true = np.take_along_axis(probabilities, _checked_labels(probabilities, labels)[:, None], axis=1)
    return float(-np.log(np.maximum(true.astype(np.float64), NLL_FLOOR)).mean())


def jensen_shannon(p: FloatArray, q: FloatArray) -> NDArray[np.float64]:
    """Return the Jensen-Shannon divergence of each face, (N,) float64 in nat (Lin 1991, eq. 4.1)."""
    p, q = _normalised(p), _normalised(q)
    middle = (p + q) / 2.0
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2.0
    return np.maximum(divergence, 0.0)


def jeffreys(p: FloatArray, q: FloatArray, smoothing: float = JEFFREYS_SMOOTHING) -> NDArray[np.float64]:
    """Return the Jeffreys divergence KL(p|q) + KL(q|p) of each face, (N,) float64 in nat.

    It is infinite at a probability of zero, so `smoothing` is added to every probability first and the rows
    are normalised again.
    """
    p, q = _normalised(_normalised(p) + smoothing), _normalised(_normalised(q) + smoothing)
    difference: NDArray[np.float64] = ((p - q) * np.log(p / q)).sum(axis=1)
    return difference


def flips(p: FloatArray, q: FloatArray) -> NDArray[np.bool_]:
    """Return whether the top label of each face changed from p to q, (N,) bool."""
    return np.asarray(top1(p) != top1(q))


def surest_half(probabilities: FloatArray) -> NDArray[np.int64]:
    """Return the faces with the largest top probability, ceil(N / 2) indices; ties go to the first."""
    order = np.argsort(-np.max(probabilities, axis=1), kind="stable")
    return order[: (len(order) + 1) // 2]


def _checked_labels(probabilities: FloatArray, labels: IntArray) -> NDArray[np.int64]:
    faces, classes = probabilities.shape
    if faces == 0 or labels.shape != (faces,):
        raise ValueError(
            f"expected one label per face and at least one face, got {labels.shape} for {faces} faces"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"expected labels 0..{classes - 1}, got {labels.min()}..{labels.max()}: drop unlabelled faces"
        )
    return labels.astype(np.int64)


def _normalised(values: FloatArray) -> NDArray[np.float64]:
    exact = np.asarray(values, dtype=np.float64)
    return np.asarray(exact / exact.sum(axis=1, keepdims=True))


def _relative_entropy(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0)  # 0 log 0 = 0
    entropy: NDArray[np.float64] = (p * np.log(ratio)).sum(axis=1)
    return entropy
