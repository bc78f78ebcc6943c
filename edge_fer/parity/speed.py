"""Is a graph faster than the float graph beside it? Times in turns on one machine, in one run.

A graph that is not shown to be faster is worth its size only; that is a verdict, never a failure.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edge_fer.parity.gates import SPEED, Gate, Thresholds, Verdict, at_least, not_run
from edge_fer.parity.intervals import Bootstrap, Interval
from edge_fer.parity.metrics import FloatArray


def speed_gate(latency_ms: FloatArray, float_ms: FloatArray, limits: Thresholds) -> Gate:
    """Judge how many times faster than float a graph is, by the paired bootstrap over turns.

    Passed when the lower bound of the ratio of the medians reaches the threshold, else "size only".

    Args:
        latency_ms: (R,) milliseconds of the graph, one a turn.
        float_ms: (R,) of the float graph, in the same turns.
        limits: the threshold and the bootstrap settings.

    Raises:
        ValueError: the two do not have the same turns, or a time is not positive.
    """
    if latency_ms.shape != float_ms.shape or not ((latency_ms > 0).all() and (float_ms > 0).all()):
        raise ValueError(
            f"expected positive times of the same turns, got {latency_ms.shape} and {float_ms.shape}"
        )
    if len(latency_ms) == 0:
        return not_run(SPEED, "no turns were timed")
    graph, beside = float(np.median(latency_ms)), float(np.median(float_ms))
    interval = _ratio_interval(latency_ms, float_ms, limits.bootstrap)
    threshold = limits.speed_ratio
    faster = at_least(interval, threshold) == "passed"
    verdict: Verdict = "passed" if faster else "size only"
    reason = f"{graph:.3g} ms against {beside:.3g} ms in float, medians of {len(latency_ms)} turns"
    reason += "" if faster else f"; not shown to be {threshold:g} times as fast: this graph saves size only"
    return Gate(SPEED, beside / graph, interval, threshold, verdict, reason)


def latency_figures(
    latency_ms: FloatArray, float_ms: FloatArray, gate: Gate, threads: int | None
) -> dict[str, object]:
    """Summarise the times of both graphs, and say whether the first is "faster" or saves "size only".

    Args:
        latency_ms: (R,) milliseconds of the graph, one a turn, R at least 1.
        float_ms: (R,) of the float graph, in the same turns.
        gate: what `speed_gate` says of these times.
        threads: of the engine; None where it chooses itself.
    """
    figures: dict[str, object] = {}
    for prefix, times in (("", latency_ms), ("fp32_", float_ms)):
        for percent in (50, 90, 99):
            figures[f"{prefix}p{percent}"] = float(np.percentile(times, percent))
    verdict = "faster" if gate.verdict == "passed" else "size only"
    return figures | {"ratio": gate.value, "verdict": verdict, "threads": threads}


def _ratio_interval(latency_ms: FloatArray, float_ms: FloatArray, bootstrap: Bootstrap) -> Interval:
    """Bound the ratio of the medians; one more turn, of the worst or best times, stands for those not seen.

    With it the bounds of few turns are those of the order statistics: below five turns there is no lower one.
    """
    rows = np.stack(list(bootstrap.weights(len(latency_ms) + 1)))
    slowest = _medians(float_ms, 0.0, rows) / _medians(latency_ms, np.inf, rows)
    # the upper bound by the inverse, which is finite: 0 where there is no bound
    inverse = _medians(latency_ms, 0.0, rows) / _medians(float_ms, np.inf, rows)
    lower, negated = bootstrap.bounds(slowest, -inverse)
    return lower, -1.0 / negated if negated else math.inf


def _medians(times: FloatArray, unseen: float, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weighted median of the times and one more, for each row of weights."""
    every = np.append(times, unseen)
    order = np.argsort(every, kind="stable")
    middle = (np.cumsum(rows[:, order], axis=1) < 0.5).sum(axis=1)
    return np.asarray(every[order][middle])
