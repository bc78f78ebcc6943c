"""What a gate is, the thresholds of the project, the three-way rule, and the gates of sampled figures.

Knows nothing of engines, bundles or pictures: arrays in, `Gate` out (the gates without sampling are in
`exact`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from edge_fer.parity import intervals, metrics
from edge_fer.parity.intervals import Interval
from edge_fer.parity.metrics import FloatArray, IntArray

Verdict = Literal["passed", "failed", "undecided", "not run"]

PREPROCESS = "preprocess"
BATCH = "batch"
FP32 = "fp32 export"
ACCURACY = "accuracy"
FLIPS = "flips"
SURE_FLIPS = "flips, surest half"
DISTRIBUTION = "distribution"
CALIBRATION = "calibration"
SAMPLED = (ACCURACY, FLIPS, SURE_FLIPS, DISTRIBUTION, CALIBRATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Every threshold of a parity report, and the settings of its statistics.

    Attributes:
        batch_diff: largest absolute difference between a face alone and in a batch, float bundles.
        batch_flips: faces whose label may depend on their batch, int8 bundles.
        fp32_diff: largest absolute difference of `probabilities` between the fp32 graph and the checkpoint.
        fp32_tie: classes of the checkpoint closer than this are a tie, either of which agrees.
        accuracy_ratio: least accuracy as a share of the float accuracy.
        flips: largest share of changed labels.
        sure_flips: the same among the half the float model is surest of.
        divergence: largest mean Jensen-Shannon divergence, in nat.
        ece_change: largest absolute change of the ECE.
        confidence: of each one-sided bound.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """

    batch_diff: float = 1e-5
    batch_flips: int = 0
    fp32_diff: float = 1e-4
    fp32_tie: float = 1e-6
    accuracy_ratio: float = 0.99
    flips: float = 0.02
    sure_flips: float = 0.005
    divergence: float = 0.005
    ece_change: float = 0.01
    confidence: float = intervals.CONFIDENCE
    resamples: int = intervals.RESAMPLES
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Gate:
    """One line of the report.

    Attributes:
        name: what was compared.
        value: the measured figure; None when there is none.
        interval: its two one-sided bounds; None for a figure that is not sampled.
        threshold: what the figure is held against; None when the gate was not run.
        verdict: passed, failed, undecided, or not run.
        reason: one sentence with the counts behind the verdict.
    """

    name: str
    value: float | None
    interval: Interval | None
    threshold: float | None
    verdict: Verdict
    reason: str

    def to_json(self) -> dict[str, object]:
        """Return the gate as plain JSON values; what is not finite becomes None."""
        interval = None if self.interval is None else [finite(bound) for bound in self.interval]
        return {
            "name": self.name,
            "value": finite(self.value),
            "interval": interval,
            "threshold": finite(self.threshold),
            "verdict": self.verdict,
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Gate:
        """Read what `to_json` wrote.

        Raises:
            ValueError: a key is missing or a value has the wrong type.
        """
        verdict, interval = value.get("verdict"), value.get("interval")
        if verdict not in get_args(Verdict):
            raise ValueError(f"expected one of {get_args(Verdict)} as verdict, got {verdict!r}")
        bounds: Interval | None = None
        if interval is not None:
            if not isinstance(interval, (list, tuple)) or len(interval) != 2:
                raise ValueError(f"expected an interval of two numbers, got {interval!r}")
            lower, upper = (_number(bound) for bound in interval)
            bounds = None if lower is None or upper is None else (lower, upper)
        return cls(
            name=str(value.get("name")),
            value=_number(value.get("value")),
            interval=bounds,
            threshold=_number(value.get("threshold")),
            verdict=cast(Verdict, verdict),
            reason=str(value.get("reason")),
        )


def not_run(name: str, reason: str) -> Gate:
    """Return a gate that could not be computed; it never reads as passed."""
    return Gate(name, None, None, None, "not run", reason)


def overall(gates: Iterable[Gate]) -> Verdict:
    """Return failed if any gate failed, else undecided if any is, else passed; undecided if none was run."""
    verdicts = {gate.verdict for gate in gates} - {"not run"}
    if "failed" in verdicts:
        return "failed"
    return "passed" if verdicts == {"passed"} else "undecided"


def at_least(interval: Interval, threshold: float) -> Verdict:
    """Apply the three-way rule to a figure that must reach `threshold`."""
    lower, upper = interval
    return "passed" if lower >= threshold else "failed" if upper < threshold else "undecided"


def at_most(interval: Interval, threshold: float) -> Verdict:
    """Apply the three-way rule to a figure that must not exceed `threshold`."""
    lower, upper = interval
    return "passed" if upper <= threshold else "failed" if lower > threshold else "undecided"


def within(interval: Interval, threshold: float) -> Verdict:
    """Apply the three-way rule to a signed figure that must stay within plus and minus `threshold`.

    Both bounds have to lie inside (two one-sided tests, Schuirmann 1987); it failed when one lies outside on
    its own side, that is, when the whole interval lies above or below.
    """
    lower, upper = interval
    if -threshold <= lower and upper <= threshold:
        return "passed"
    return "failed" if lower > threshold or upper < -threshold else "undecided"


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
    neither = faces - both - lost - gained
    samples = intervals.bootstrap_ratio(both, lost, gained, neither, limits.resamples, limits.seed)
    interval = intervals.percentile_interval(samples, limits.confidence)
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
    if verdict == "undecided" and 0.0 < threshold < 1.0:
        needed = intervals.smallest_set_without(threshold, limits.confidence)
        reason += f"; even without a flip {needed} faces are needed to decide" if faces < needed else ""
    return Gate(name, count / faces, interval, threshold, verdict, reason)


def distribution_gate(expected: FloatArray, got: FloatArray, limits: Thresholds) -> Gate:
    """Judge the mean Jensen-Shannon divergence per face, in nat, by the bootstrap over faces."""
    divergence = metrics.jensen_shannon(expected, got)
    faces = len(divergence)
    samples = intervals.bootstrap(
        lambda counts: float(counts @ divergence) / faces, faces, limits.resamples, limits.seed
    )
    interval = intervals.percentile_interval(samples, limits.confidence)
    p95, largest = float(np.quantile(divergence, 0.95)), float(divergence.max())
    return Gate(
        DISTRIBUTION,
        float(divergence.mean()),
        interval,
        limits.divergence,
        at_most(interval, limits.divergence),
        f"Jensen-Shannon on {faces} faces: 95 % are below {p95:.2g} nat, the largest is {largest:.2g}",
    )


def calibration_gate(expected: FloatArray, got: FloatArray, labels: IntArray, limits: Thresholds) -> Gate:
    """Judge the signed change of the ECE by the paired bootstrap.

    The absolute change would be biased upwards by resampling, so the signed one is resampled, its own bias
    reflected out, and both bounds are held against the threshold.
    """
    before = metrics.CalibrationCurve.of(expected, labels)
    after = metrics.CalibrationCurve.of(got, labels)
    change = after.ece() - before.ece()
    samples = intervals.bootstrap(
        lambda counts: after.ece(counts) - before.ece(counts), len(labels), limits.resamples, limits.seed
    )
    interval = intervals.basic_interval(change, samples, limits.confidence)
    reason = f"ECE {after.ece():.4f} against {before.ece():.4f} on {len(labels)} faces"
    verdict = within(interval, limits.ece_change)
    return Gate(CALIBRATION, change, interval, limits.ece_change, verdict, reason)


def finite(value: float | None) -> float | None:
    """Return the number for JSON, which knows no NaN and no infinity: None instead."""
    return value if value is not None and math.isfinite(value) else None


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"expected a number or null in a gate, got {value!r}")
    return value
