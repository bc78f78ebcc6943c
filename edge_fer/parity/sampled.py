"""The gates of figures that rest on a set of faces: what could hold by chance is "undecided", never "passed".

Arrays in, `Gate` out. A verdict follows from the interval shown by the three-way rule alone, and the interval
allows for faces of a kind that the set does not hold (`intervals.Bootstrap`): so a set that could by chance
miss every one of the ruined faces that use up a gate's budget cannot pass it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edge_fer.parity import intervals, metrics
from edge_fer.parity.gates import (
    ACCURACY,
    CALIBRATION,
    DISTRIBUTION,
    HEAD,
    RECALL,
    SURE_FLIPS,
    Gate,
    Thresholds,
    Verdict,
    at_least,
    at_most,
    not_run,
    within,
)
from edge_fer.parity.intervals import Interval
from edge_fer.parity.metrics import FloatArray, IntArray

LARGEST_DIVERGENCE = math.log(2.0)
"""Jensen-Shannon divergence of a face whose distributions share no class, in nat."""
ECE_SPAN = 2.0
"""Largest change of the ECE by a face as a multiple of its share: one ECE may rise, the other fall."""


def accuracy_gate(expected: FloatArray, got: FloatArray, labels: IntArray, limits: Thresholds) -> Gate:
    """Judge the accuracy as a share of the float accuracy, by the paired bootstrap.

    Args:
        expected: (N, C) distributions of the float checkpoint.
        got: (N, C) distributions of the bundle, same faces.
        labels: (N,) true labels, none missing.
        limits: thresholds and bootstrap settings.
    """
    was, now = metrics.correct(expected, labels), metrics.correct(got, labels)
    both, lost, gained = int((was & now).sum()), int((was & ~now).sum()), int((~was & now).sum())
    faces = len(labels)
    if not was.any():
        return not_run(ACCURACY, f"the float model has none of {faces} faces right, so there is no ratio")
    interval = limits.bootstrap.ratio(both, lost, gained, faces - both - lost - gained)
    threshold = limits.accuracy_ratio
    reason = (
        f"{now.mean():.4f} against {was.mean():.4f} on {faces} faces: {lost} lost, {gained} gained, "
        f"McNemar p {intervals.mcnemar_exact(lost, gained):.3g}"
    )
    drop = (1.0 - threshold) * float(was.mean())
    if 0.0 < drop < 1.0:
        needed = intervals.smallest_set(drop, (lost + gained) / faces, limits.confidence)
        reason += f"; {needed} faces could show a drop of {drop:.4f}"
    value = float(now.sum() / was.sum())
    return Gate(ACCURACY, value, interval, threshold, at_least(interval, threshold), reason)


def flips_gate(changed: NDArray[np.bool_], name: str, threshold: float, limits: Thresholds) -> Gate:
    """Judge the share of changed labels by exact binomial bounds.

    Args:
        changed: (N,) bool, whether the label of each face changed.
        name: `FLIPS` or `SURE_FLIPS`.
        threshold: the largest share allowed.
        limits: the confidence of the bounds.
    """
    count, faces = int(changed.sum()), len(changed)
    interval = intervals.clopper_pearson(count, faces, limits.confidence)
    verdict = at_most(interval, threshold)
    reason = f"{count} of {faces} faces changed their label"
    reason += _needed(
        verdict, threshold, faces, limits, "a flip", "in this half" if name == SURE_FLIPS else ""
    )
    return Gate(name, count / faces, interval, threshold, verdict, reason)


def distribution_gate(expected: FloatArray, got: FloatArray, limits: Thresholds) -> Gate:
    """Judge the mean Jensen-Shannon divergence per face, in nat, by the bootstrap over faces."""
    divergence = metrics.jensen_shannon(expected, got)
    faces, threshold = len(divergence), limits.divergence
    interval = limits.bootstrap.mean(divergence, 0.0, LARGEST_DIVERGENCE)
    verdict = at_most(interval, threshold)
    p95, largest = float(np.quantile(divergence, 0.95)), float(divergence.max())
    reason = f"Jensen-Shannon on {faces} faces: 95 % are below {p95:.2g} nat, the largest is {largest:.2g}"
    reason += _needed(verdict, threshold / LARGEST_DIVERGENCE, faces, limits, "any divergence")
    return Gate(DISTRIBUTION, float(divergence.mean()), interval, threshold, verdict, reason)


def calibration_gate(expected: FloatArray, got: FloatArray, labels: IntArray, limits: Thresholds) -> Gate:
    """Judge the signed change of the ECE by the paired bootstrap.

    The absolute change would be biased upwards by resampling, so the signed one is resampled, its own bias
    reflected out, and both bounds are held against the threshold. The bound on the far side of zero reaches
    at least as far as a change that noise may hide, which no resampling of the figure shows: the ECE of a
    well calibrated model is mere noise on a small set, and hardly grows with a shift smaller than that.
    """
    before = metrics.CalibrationCurve.of(expected, labels)
    after = metrics.CalibrationCurve.of(got, labels)
    change, faces, threshold = after.ece() - before.ece(), len(labels), limits.ece_change
    lower, upper = limits.bootstrap.change(
        change, lambda weights: after.ece(weights) - before.ece(weights), faces, ECE_SPAN
    )
    hidden = _hidden_change(expected, got, labels, limits.confidence)
    interval = (lower, max(upper, hidden)) if change >= 0.0 else (min(lower, -hidden), upper)
    verdict = within(interval, threshold)
    reason = f"ECE {after.ece():.4f} against {before.ece():.4f} on {faces} faces"
    reason += _needed(verdict, threshold / ECE_SPAN, faces, limits, "a change")
    return Gate(CALIBRATION, change, interval, threshold, verdict, reason)


def _hidden_change(expected: FloatArray, got: FloatArray, labels: IntArray, confidence: float) -> float:
    """Return the largest change of the ECE, 0..1, that the noise of the float model's gaps leaves room for.

    In bins of the float model's confidence let g be its gap (confidence minus accuracy) and d the paired
    change of the gap. A bin's part of the ECE changes by |g + d| - |g|, which is d or -d where the sign of g
    is sure, and anything between where it is not. So g is put at both of its bounds, and the worse sum taken.
    """
    faces, sure = len(labels), np.max(expected, axis=1)
    right = metrics.correct(expected, labels).astype(np.float64)
    change = np.max(got, axis=1) - metrics.correct(got, labels) - (sure - right)
    # a run of equal confidence goes to one bin whole, by its middle rank: the order of faces does not matter
    _, run, counts = np.unique(sure, return_inverse=True, return_counts=True)
    bins = ((np.cumsum(counts) - counts / 2) * metrics.ECE_BINS / faces).astype(np.int64)[run]
    total = np.maximum(np.bincount(bins), 1)
    g, d = (np.bincount(bins, values) / total for values in (sure - right, change))
    accuracy = (np.bincount(bins, right) + 1.0) / (total + 2.0)  # of no bin is it sure to be 0 or 1
    error = NormalDist().inv_cdf(confidence) * np.sqrt(accuracy * (1.0 - accuracy) / total)
    moved = np.stack([np.abs(end + d) - np.abs(end) for end in (g - error, g + error)])
    share = np.bincount(bins) / faces
    seen = max(float(share @ moved.max(axis=0)), -float(share @ moved.min(axis=0)))
    unseen = intervals.clopper_pearson(0, faces, confidence)[1]
    return (1.0 - unseen) * seen + unseen * ECE_SPAN


def recall_gate(
    expected: FloatArray, got: FloatArray, labels: IntArray, names: Sequence[str], limits: Thresholds
) -> Gate:
    """Judge the change of the recall of the class that lost most, of those with enough faces.

    The interval is that of the smallest change of any gated class. Its lower bound is the smallest of the
    classes' lower bounds: all of them have to be good, and that needs no correction for their number (the
    intersection-union test, Berger 1982). Its upper bound is the smallest of their upper bounds at a
    confidence that is corrected for it (Bonferroni): any class may fail the gate, and none shall by chance.

    Args:
        expected: (N, C) distributions of the float checkpoint.
        got: (N, C) distributions of the bundle, same faces.
        labels: (N,) true labels, none missing.
        names: of the C classes.
        limits: thresholds and bootstrap settings.
    """
    was, now = metrics.correct(expected, labels), metrics.correct(got, labels)
    counts = np.bincount(labels, minlength=len(names)).tolist()
    enough = max(1, limits.recall_faces)
    chosen = [index for index, faces in enumerate(counts) if faces >= enough]
    few = ", ".join(f"{name} {faces}" for name, faces in zip(names, counts, strict=True) if faces < enough)
    ungated = f"not gated, with fewer than {enough} faces: {few}" if few else ""
    if not chosen:
        return not_run(RECALL, f"no class has enough faces; {ungated}")
    classes = [
        _ClassRecall.of(names[index], was[labels == index], now[labels == index], len(chosen), limits)
        for index in chosen
    ]
    bounds = [one.interval for one in classes]
    interval = min(lower for lower, _ in bounds), min(upper for _, upper in bounds)
    worst, threshold = min(classes, key=lambda one: one.change), -limits.recall_drop
    verdict = at_least(interval, threshold)
    reason = "; ".join(filter(None, (str(worst), _blame(classes, verdict, threshold), ungated)))
    return Gate(RECALL, worst.change, interval, threshold, verdict, reason)


@dataclass(frozen=True, slots=True)
class _ClassRecall:
    """How the recall of one class changed.

    Attributes:
        name: of the class.
        faces: of the class.
        before: right in the float model.
        after: right in the bundle.
        lost: right in the float model only.
        gained: right in the bundle only.
        interval: of the change; the upper bound is corrected for the number of classes.
    """

    name: str
    faces: int
    before: int
    after: int
    lost: int
    gained: int
    interval: Interval

    @classmethod
    def of(
        cls, name: str, was: NDArray[np.bool_], now: NDArray[np.bool_], classes: int, limits: Thresholds
    ) -> _ClassRecall:
        """Compare the answers of two models, (faces of the class,) bool, one of `classes` that are gated."""
        lost, gained, faces = int((was & ~now).sum()), int((~was & now).sum()), len(was)
        plain = limits.bootstrap
        corrected = replace(plain, confidence=1.0 - (1.0 - plain.confidence) / classes)
        lower, _ = plain.difference(lost, gained, faces)
        _, upper = corrected.difference(lost, gained, faces)
        return cls(name, faces, int(was.sum()), int(now.sum()), lost, gained, (lower, upper))

    @property
    def change(self) -> float:
        """Recall of the bundle less that of the float model."""
        return (self.gained - self.lost) / self.faces

    def __str__(self) -> str:
        """Return the counts behind the change."""
        return (
            f"{self.name} {self.after / self.faces:.4f} against {self.before / self.faces:.4f} on "
            f"{self.faces} faces: {self.lost} lost, {self.gained} gained"
        )


def _blame(classes: Sequence[_ClassRecall], verdict: Verdict, threshold: float) -> str:
    """Name the classes that the verdict rests on, and how many were looked at."""
    guilty = [one.name for one in classes if at_least(one.interval, threshold) == verdict]
    if verdict == "passed":
        return f"the worst of {len(classes)} classes"
    if verdict == "failed":
        return (
            f"fell too far, at a level corrected for {len(classes)} classes (Bonferroni): {', '.join(guilty)}"
        )
    return f"undecided of {len(classes)} classes: {', '.join(guilty)}"


def head_gate(
    reference_reliability: FloatArray, reliability: FloatArray, threshold: float, limits: Thresholds
) -> Gate:
    """Judge the signed shift of the coverage, the share of faces that are kept, by the paired bootstrap.

    Args:
        reference_reliability: (N,) of the float checkpoint.
        reliability: (N,) of the bundle, same faces.
        threshold: faces of at least this reliability are kept.
        limits: thresholds and bootstrap settings.
    """
    faces, allowed = len(reliability), limits.coverage_shift
    broken = int((~np.isfinite(reliability)).sum())
    if broken:
        reason = f"{broken} of {faces} faces have a reliability that is not finite"
        return Gate(HEAD, None, None, allowed, "failed", reason)
    # float64, as the recogniser compares: float32 would round the threshold as well
    was, now = (each.astype(np.float64) >= threshold for each in (reference_reliability, reliability))
    dropped, gained = int((was & ~now).sum()), int((~was & now).sum())
    interval = limits.bootstrap.difference(dropped, gained, faces)
    verdict = within(interval, allowed)
    reason = (
        f"coverage {now.mean():.4f} against {was.mean():.4f} at reliability {threshold:.4f} "
        f"on {faces} faces: {dropped} dropped, {gained} kept anew"
    )
    reason += _needed(verdict, allowed, faces, limits, "a change")
    return Gate(HEAD, (gained - dropped) / faces, interval, allowed, verdict, reason)


def _needed(
    verdict: Verdict, budget: float, faces: int, limits: Thresholds, event: str, where: str = ""
) -> str:
    """Say how many faces could pass at best, when these are fewer.

    Args:
        verdict: of the gate.
        budget: share of ruined faces that would use up the whole threshold.
        faces: of the set.
        limits: the confidence.
        event: what would be missing in the best case.
        where: which part of all faces the set is.
    """
    if verdict != "undecided" or not 0.0 < budget < 1.0:
        return ""
    needed = intervals.smallest_set_without(budget, limits.confidence)
    among = f" {where}" if where else ""
    return f"; even without {event} {needed} faces are needed{among} to decide" if faces < needed else ""
