"""Every figure of the project, as plain functions of arrays.

Knows nothing of gates, thresholds or uncertainty (see `gates` and `intervals`). The first argument is a
distribution per face, (N, C) float, unless the docstring says otherwise, and labels are (N,) integers 0..C-1;
all arithmetic is float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]

ECE_BINS = 15
NLL_FLOOR = 1e-12
"""Least probability in a logarithm."""
JEFFREYS_SMOOTHING = 1e-6
TEMPERATURES = (0.01, 100.0)
"""Where a temperature is looked for."""


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


def error_shares(probabilities: FloatArray, labels: IntArray) -> NDArray[np.float64]:
    """Return which share of all errors are faces of each class, (C,) float64 that sums to 1.

    NaN throughout for a model without errors.
    """
    matrix = confusion(probabilities, labels)
    errors = matrix.sum(axis=1) - np.diag(matrix)
    shares = np.full(len(errors), np.nan)
    np.divide(errors, errors.sum(), out=shares, where=errors.sum() > 0)
    return shares


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

    def ece(self, weights: NDArray[np.float64] | None = None) -> float:
        """Return the expected calibration error, 0..1, of the set or of a resample.

        Bins hold exactly equal mass: a face on a border, and a run of equal confidences, is shared between
        its bins in proportion, so that neither the order of the faces nor a remainder of N / bins changes the
        result.

        Args:
            weights: (N,) float64, how much of the resample each face makes up; None for equal parts.
        """
        weight = np.ones(len(self.order)) if weights is None else weights[self.order]
        mass = np.cumsum(weight)
        gap = np.cumsum(weight * self.gaps)
        borders = np.arange(1, self.bins) * (mass[-1] / self.bins)
        # only the runs that hold a border are looked at: this is called for every resample
        runs = np.searchsorted(self.ends, np.searchsorted(mass, borders))
        first, last = self.ends[runs - 1], self.ends[runs]
        below, gap_below = (np.where(runs > 0, total[first], 0.0) for total in (mass, gap))
        within = (borders - below) / (mass[last] - below)
        at_borders = gap_below + within * (gap[last] - gap_below)
        return float(np.abs(np.diff(at_borders, prepend=0.0, append=gap[-1])).sum() / mass[-1])


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


def temperature(probabilities: FloatArray, labels: IntArray) -> float:
    """Return the temperature T that minimises the NLL (Guo et al. 2017, section 4.2).

    Probabilities p, floored at 1e-12, become p^(1/T) normalised: above 1 the model is too sure, below 1 not
    sure enough. An end of `TEMPERATURES` is returned where the best lies beyond it (a model that is always
    right, say), and 1 where none changes anything (all classes equally likely).
    """
    true = np.zeros(probabilities.shape)
    true[np.arange(len(true)), _checked_labels(probabilities, labels)] = 1.0
    return _best_temperature(_floored(probabilities), true)


def repair_temperature(expected: FloatArray, got: FloatArray) -> float:
    """Return the temperature T that brings `got` closest to `expected`, in mean cross-entropy.

    The rows of `got` become p^(1/T) normalised. 1 repairs nothing: the two lie apart in another way than by a
    temperature, or not at all. Floor and ends are those of `temperature`.
    """
    return _best_temperature(_floored(got), _floored(expected))


def _best_temperature(probabilities: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """Minimise the mean of -sum(target * log softmax(b * log p)), convex in b = 1/T, by bracketed Newton."""
    logs = np.log(probabilities)
    aim = float((target * logs).sum(axis=1).mean())

    def slope(inverse: float) -> tuple[float, float]:  # first and second derivative of the objective
        powered = np.exp(inverse * (logs - logs.max(axis=1, keepdims=True)))
        powered /= powered.sum(axis=1, keepdims=True)
        mean = (powered * logs).sum(axis=1)
        spread = (powered * np.square(logs - mean[:, None])).sum(axis=1)
        return float(mean.mean()) - aim, float(spread.mean())

    if slope(1.0)[1] < 1e-15:
        return 1.0
    low, high = 1.0 / TEMPERATURES[1], 1.0 / TEMPERATURES[0]
    if slope(low)[0] >= 0.0:
        return TEMPERATURES[1]
    if slope(high)[0] <= 0.0:
        return TEMPERATURES[0]
    inverse, before = 1.0, math.inf
    while abs(inverse - before) > 1e-14 * inverse:
        first, second = slope(inverse)
        low, high = (inverse, high) if first < 0.0 else (low, inverse)
        newton = inverse - first / second if second > 0.0 else low
        before, inverse = inverse, newton if low < newton < high else (low + high) / 2.0
    return 1.0 / inverse


def _floored(probabilities: FloatArray) -> NDArray[np.float64]:
    return _normalised(np.maximum(np.asarray(probabilities, dtype=np.float64), NLL_FLOOR))


def embedding_cosine(a: FloatArray, b: FloatArray) -> NDArray[np.float64]:
    """Return the cosine between the embeddings of each face, (N,) float64 in -1..1.

    Args:
        a: (N, D) embeddings of one model.
        b: (N, D) of the other; where one of the two is all zero the cosine is 0, where both are it is 1.
    """
    a, b = (np.asarray(each, dtype=np.float64) for each in (a, b))
    lengths = [np.sqrt(np.square(each).sum(axis=1)) for each in (a, b)]
    product = lengths[0] * lengths[1]
    cosine = ((lengths[0] == 0.0) & (lengths[1] == 0.0)).astype(np.float64)
    np.divide((a * b).sum(axis=1), product, out=cosine, where=product > 0.0)
    return np.asarray(np.clip(cosine, -1.0, 1.0))


def auroc(values: FloatArray, positive: NDArray[np.bool_]) -> float:
    """Return how often a positive face has the larger value of a pair, 0..1; equal values count half.

    The area under the ROC curve (Hanley & McNeil 1982); NaN without a positive or without a negative face.

    Args:
        values: (N,).
        positive: (N,) bool.
    """
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    hits = int(positive.sum())
    pairs = hits * (len(positive) - hits)
    return float((ranks[positive].sum() - hits * (hits + 1) / 2.0) / pairs) if pairs else math.nan


@dataclass(frozen=True, slots=True)
class Spread:
    """How uneven the distribution of each face is, each (N,) float64 0..1.

    Attributes:
        highest: its largest probability.
        lowest: its least.
        deviation: the standard deviation of its C probabilities (divided by C, not C - 1).
    """

    highest: NDArray[np.float64]
    lowest: NDArray[np.float64]
    deviation: NDArray[np.float64]


def spread(probabilities: FloatArray) -> Spread:
    """Measure every face's distribution as Fig. 4 of GReFEL's supplement does before and after balancing."""
    exact = np.asarray(probabilities, dtype=np.float64)
    return Spread(exact.max(axis=1), exact.min(axis=1), exact.std(axis=1))


def nearest_counts(nearest: IntArray, classes: int, anchors: int) -> NDArray[np.int64]:
    """Count the faces that each anchor is the nearest one to, (classes, anchors) int64.

    Args:
        nearest: (N,) the nearest anchor of each face, class by class: c * anchors + k.
        classes: C.
        anchors: K, per class.
    """
    if len(nearest) and not 0 <= nearest.min() <= nearest.max() < classes * anchors:
        raise ValueError(f"expected anchors 0..{classes * anchors - 1}, got {nearest.min()}..{nearest.max()}")
    return np.bincount(nearest, minlength=classes * anchors).reshape(classes, anchors)


def rms(values: FloatArray) -> NDArray[np.float64]:
    """Return the root mean square over the last axis (per dimension), float64 of the other axes' shape."""
    return np.asarray(np.sqrt(np.square(np.asarray(values, dtype=np.float64)).mean(axis=-1)))


def davies_bouldin(embeddings: FloatArray, labels: IntArray) -> float:
    """Return the mean over classes of the worst ratio of scatter to distance (Davies & Bouldin 1979).

    Scatter is the mean Euclidean distance to the class's mean; lower is better. NaN for fewer than two
    classes with faces, and infinite where two classes with some scatter have the same mean.

    Args:
        embeddings: (N, D).
        labels: (N,) integers.
    """
    exact, rows = np.asarray(embeddings, dtype=np.float64), _rows_per_class(labels)
    if len(rows) < 2:
        return math.nan
    means = np.stack([exact[chosen].mean(axis=0) for chosen in rows])
    scatter = np.array(
        [_lengths(exact[chosen] - mean).mean() for chosen, mean in zip(rows, means, strict=True)]
    )
    worst = []
    for one, mean in enumerate(means):
        both, apart = scatter + scatter[one], _lengths(means - mean)
        ratio = np.where(both > 0, np.inf, 0.0)
        np.divide(both, apart, out=ratio, where=apart > 0)
        worst.append(np.delete(ratio, one).max())
    return float(np.mean(worst))


def calinski_harabasz(embeddings: FloatArray, labels: IntArray) -> float:
    """Return the variance between classes over that within, per degree of freedom (Calinski & Harabasz 1974).

    Higher is better. NaN for fewer than two classes with faces, for no more faces than classes, and where all
    faces of each class coincide.

    Args:
        embeddings: (N, D).
        labels: (N,) integers.
    """
    exact, rows = np.asarray(embeddings, dtype=np.float64), _rows_per_class(labels)
    faces, classes = len(exact), len(rows)
    middle = exact.mean(axis=0)
    between = sum(len(chosen) * np.square(exact[chosen].mean(axis=0) - middle).sum() for chosen in rows)
    within = sum(np.square(exact[chosen] - exact[chosen].mean(axis=0)).sum() for chosen in rows)
    if classes < 2 or faces <= classes or within == 0.0:
        return math.nan
    return float((between / (classes - 1)) / (within / (faces - classes)))


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


def _rows_per_class(labels: IntArray) -> list[NDArray[np.int64]]:
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def _lengths(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(np.square(vectors).sum(axis=1)))


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
    # 0 log 0 = 0; q, half of p at least, is 0 beside the least float only
    ratio = np.divide(p, q, out=np.ones_like(p), where=(p > 0) & (q > 0))
    entropy: NDArray[np.float64] = (p * np.log(ratio)).sum(axis=1)
    return entropy
