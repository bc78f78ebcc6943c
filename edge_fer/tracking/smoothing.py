"""Smooths what the model says of each person over time. Knows distributions and times, no pictures."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TIME_CONSTANT_S = 0.3
_RESTART_S = 1.0  # a face not recognised for longer starts afresh
_CHANGE_S = 0.2  # a new label that holds for so long ...
_CHANGE_FRAMES = 4  # ... and in so many frames replaces what was before
_LEAST_WEIGHT = 1e-3  # a flat distribution counts a little, or a face that only has such ones had no mean


@dataclass(slots=True)
class _Sum:
    """A weighted sum of pairs of distributions that fades as time goes by."""

    start_s: float
    values: NDArray[np.float64]  # (2, C)
    weight: float = 0.0
    frames: int = 0

    def fade(self, share: float) -> None:
        self.values *= share
        self.weight *= share

    def add(self, pair: NDArray[np.float64], weight: float) -> None:
        self.values += weight * pair
        self.weight += weight
        self.frames += 1


@dataclass(slots=True)
class _Memory:
    """What is known of one track: all frames that count, and the run of those that contradict them."""

    time_s: float
    total: _Sum
    run: _Sum
    run_label: int | None = None


class Smoother:
    """Averages the distributions of each track; one per source.

    At the time t of a frame, over the frames i of the same track up to it,

        p(t) = sum_i w_i p_i / sum_i w_i,    w_i = max(r_i, 0.001) exp(-(t - t_i) / 0.3 s),

    where p_i is `probabilities` and r_i the frame's `reliability`; `primary` is averaged with the same
    weights. The reliability given back is 1 - H(p(t)) / log C, the graph's own formula, of the average.

    The memory is cut short, so that a real change shows at once:
    * once the frames of the last 0.2 s, four at least, agree on a label that is not the average's, only they
      count from then on;
    * a face that was not recognised for more than 1 s, or whose time runs backwards, starts afresh.
    """

    def __init__(self, time_constant_s: float = TIME_CONSTANT_S) -> None:
        self._time_constant_s = time_constant_s
        self._memories: dict[int, _Memory] = {}

    def smooth(
        self,
        track: int,
        time_s: float,
        probabilities: NDArray[np.float32],
        primary: NDArray[np.float32],
        reliability: float,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
        """Add what the model says of a face and return the average.

        Args:
            track: the person's number.
            time_s: the frame's time in seconds; only differences count.
            probabilities: (C,) float32, sums to 1.
            primary: (C,) float32, sums to 1.
            reliability: 0..1, of `probabilities`.

        Returns:
            `probabilities` (C,) float32, `primary` (C,) float32 and `reliability` 0..1 of the average.
        """
        pair = np.stack([probabilities, primary]).astype(np.float64)
        weight = max(reliability, _LEAST_WEIGHT)
        memory = self._memories.get(track)
        if memory is None or not 0 <= time_s - memory.time_s <= _RESTART_S:
            memory = _Memory(time_s, _empty(time_s, pair), _empty(time_s, pair))
            self._memories[track] = memory
        share = float(np.exp((memory.time_s - time_s) / self._time_constant_s))
        memory.time_s = time_s
        self._follow(memory, share, pair, weight)
        average = memory.total.values / memory.total.weight
        return average[0].astype(np.float32), average[1].astype(np.float32), _reliability(average[0])

    def forget(self, alive: Collection[int]) -> None:
        """Drop what is known of all tracks but these."""
        for track in self._memories.keys() - set(alive):
            del self._memories[track]

    @staticmethod
    def _follow(memory: _Memory, share: float, pair: NDArray[np.float64], weight: float) -> None:
        memory.total.fade(share)
        memory.run.fade(share)
        label = int(pair[0].argmax())
        memory.total.add(pair, weight)
        if label == int(memory.total.values[0].argmax()):
            memory.run_label = None
            return
        if label != memory.run_label:
            memory.run_label, memory.run = label, _empty(memory.time_s, pair)
        memory.run.add(pair, weight)
        if memory.run.frames >= _CHANGE_FRAMES and memory.time_s - memory.run.start_s >= _CHANGE_S:
            memory.total, memory.run_label = memory.run, None


def _empty(time_s: float, pair: NDArray[np.float64]) -> _Sum:
    return _Sum(time_s, np.zeros_like(pair))


def _reliability(distribution: NDArray[np.float64]) -> float:
    """Return 1 - H(p) / log C in 0..1; 0 log 0 = 0."""
    positive = distribution[distribution > 0]
    entropy = -float((positive * np.log(positive)).sum())
    return min(1.0, max(0.0, 1.0 - entropy / float(np.log(len(distribution)))))
