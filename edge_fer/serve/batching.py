"""Which faces run together: in sizes that gain time here and leave every bit of a row as it is alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_fer.engines.base import Engine, Outputs
from edge_fer.errors import EngineError

SIZES = (1, 2, 4, 8, 16)
_GAIN = 1.03  # a smaller size within 3 % of the fastest one is preferred: its faces wait less
_QUICK_S = 0.4  # measuring goes on for so long ...
_LONGEST_S = 2.0  # ... and begins nothing that would end after this
_ROUNDS = 3  # the fastest of so many runs counts: what disturbs only makes slower
_CROPS = 8


@dataclass(frozen=True, slots=True)
class Batching:
    """What may run together.

    Attributes:
        sizes: faces of one run, ascending from 1; in each of these sizes every row was bit for bit the same.
    """

    sizes: tuple[int, ...] = (1,)

    @property
    def largest(self) -> int:
        """Faces of the largest run that is made of several pictures."""
        return self.sizes[-1]

    def together(self, faces: Sequence[int]) -> int:
        """Return how many of the pictures that wait, the first ones, run together.

        One with a number of faces that is no size runs alone, as it would anywhere else.

        Args:
            faces: how many each has, in their order; at least one picture.
        """
        total, best = 0, 1
        for pictures, count in enumerate(faces, start=1):
            total += count
            if total > self.largest or (count and count not in self.sizes):
                break
            if total == 0 or total in self.sizes:
                best = pictures
        return best


def measure(engine: Engine, side: int) -> Batching:
    """Run a graph in several sizes, for a second or a few, and return those that are worth it.

    The largest is the smallest size within 3 % of the shortest time per face. Sizes that a slow network
    leaves no time for are not used.

    Args:
        engine: that holds the graph.
        side: of a crop in pixels.

    Raises:
        EngineError: the engine fails on a single face.
    """
    started = time.perf_counter()
    crops = np.random.default_rng(0).integers(0, 256, (_CROPS, side, side, 3)).astype(np.uint8)
    engine.run(crops[:1])
    face_s = {1: _seconds(engine, crops[:1])}
    alone: list[Outputs] = []
    for size in SIZES[1:]:
        left_s = started + _LONGEST_S - time.perf_counter()
        if 3 * size * face_s[1] > left_s:
            break
        alone += [engine.run(crops[row : row + 1]) for row in range(len(alone), min(size, _CROPS))]
        batch = np.resize(crops, (size, *crops.shape[1:]))
        try:
            if _same(engine.run(batch), alone):
                face_s[size] = _seconds(engine, batch) / size
        except EngineError:  # one face at a time, or no memory for more
            break
    _repeat(engine, crops, face_s, started)
    limit = _GAIN * min(face_s.values())
    largest = min(size for size, seconds in face_s.items() if seconds <= limit)
    return Batching(tuple(size for size in face_s if size <= largest))


def _repeat(engine: Engine, crops: NDArray[np.uint8], face_s: dict[int, float], started: float) -> None:
    """Measure again as long as there is time, and keep the shortest times."""
    round_s = sum(size * seconds for size, seconds in face_s.items())
    rounds = 1
    while len(face_s) > 1:
        spent_s = time.perf_counter() - started
        if spent_s + round_s > _LONGEST_S or (rounds >= _ROUNDS and spent_s > _QUICK_S):
            return
        rounds += 1
        for size in face_s:
            batch = np.resize(crops, (size, *crops.shape[1:]))
            face_s[size] = min(face_s[size], _seconds(engine, batch) / size)


def _seconds(engine: Engine, batch: NDArray[np.uint8]) -> float:
    started = time.perf_counter()
    engine.run(batch)
    return time.perf_counter() - started


def _same(together: Outputs, alone: Sequence[Outputs]) -> bool:
    """Tell whether every row of a batch, made of the same crops over and over, has the bits of the crop's."""
    return all(
        together.probabilities[row].tobytes() == alone[row % len(alone)].probabilities.tobytes()
        and together.primary[row].tobytes() == alone[row % len(alone)].primary.tobytes()
        and together.reliability[row].tobytes() == alone[row % len(alone)].reliability.tobytes()
        for row in range(len(together.reliability))
    )
