"""What a gate is, the thresholds of the project, and the three-way rule.

The gates themselves are in `exact` (without sampling), `sampled` (figures of a set of faces) and `speed`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from edge_fer.parity import intervals
from edge_fer.parity.intervals import Bootstrap, Interval

Verdict = Literal["passed", "failed", "undecided", "not run", "size only"]

PREPROCESS = "preprocess"
BATCH = "batch"
FP32 = "fp32 export"
ACCURACY = "accuracy"
FLIPS = "flips"
SURE_FLIPS = "flips, surest half"
DISTRIBUTION = "distribution"
CALIBRATION = "calibration"
RECALL = "per class"
HEAD = "reliability head"
SPEED = "speed"
SAMPLED = (ACCURACY, FLIPS, SURE_FLIPS, DISTRIBUTION, CALIBRATION, RECALL, HEAD)


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
        recall_drop: largest fall of the recall of a class.
        recall_faces: fewest faces of a class whose recall is gated.
        coverage_shift: largest absolute change of the share of faces kept at the abstention threshold.
        coverage: share of faces the float model keeps, where the bundle names no abstention threshold.
        speed_ratio: least speed as a multiple of the float graph's.
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
    recall_drop: float = 0.05
    recall_faces: int = 150
    coverage_shift: float = 0.01
    coverage: float = 0.8
    speed_ratio: float = 1.2
    confidence: float = intervals.CONFIDENCE
    resamples: int = intervals.RESAMPLES
    seed: int = 0

    @property
    def bootstrap(self) -> Bootstrap:
        """The settings that every bootstrap of one report shares."""
        return Bootstrap(confidence=self.confidence, resamples=self.resamples, seed=self.seed)


@dataclass(frozen=True, slots=True)
class Gate:
    """One line of the report.

    Attributes:
        name: what was compared.
        value: the measured figure; None when there is none.
        interval: its two one-sided bounds; None for a figure that is not sampled.
        threshold: what the figure is held against; None when the gate was not run.
        verdict: passed, failed, undecided, not run, or size only (a graph that is not shown to be faster).
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
    """Return failed if any gate failed, else undecided if any is, else passed.

    Undecided, too, where no gate that rests on a set of faces was run: the exact ones alone do not tell
    whether a bundle decides as its checkpoint does. "size only" counts neither way: a graph that is no faster
    answers no worse.
    """
    counted = [gate for gate in gates if gate.verdict not in ("not run", "size only")]
    verdicts = {gate.verdict for gate in counted}
    if "failed" in verdicts:
        return "failed"
    rests_on_faces = any(gate.name in SAMPLED for gate in counted)
    return "passed" if verdicts == {"passed"} and rests_on_faces else "undecided"


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


def finite(value: float | None) -> float | None:
    """Return the number for JSON, which knows no NaN and no infinity: None instead."""
    return value if value is not None and math.isfinite(value) else None


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"expected a number or null in a gate, got {value!r}")
    return value
