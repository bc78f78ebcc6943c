"""A detector that is told where the faces are, and that errs like a real one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edge_fer.detectors import Detection
from tests.edge_fer.tracking.clips import Box, Picture, overlap


class ScriptedDetector:
    """Answers with the true boxes, moved and resized a little; misses some and sees some that are not there.

    Args:
        boxes: the true boxes at a time in seconds, later ones in front: those that they cover are not seen.
        jitter: standard deviation of position and size, as a share of the size.
        misses: probability that a face is missed.
    """

    name = "scripted"

    def __init__(
        self,
        boxes: Callable[[float], Sequence[Box]],
        *,
        jitter: float = 0.0,
        misses: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.time_s = 0.0
        self.calls: list[float] = []
        self.extra: Callable[[float], Sequence[Box]] = lambda time_s: []
        self._boxes = boxes
        self._jitter = jitter
        self._misses = misses
        self._generator = np.random.default_rng(seed)

    def detect(self, image: Picture, side: int = 640) -> list[Detection]:
        self.calls.append(self.time_s)
        boxes = list(self._boxes(self.time_s))
        seen = [
            box
            for number, box in enumerate(boxes)
            if all(overlap(box, front) < 0.2 for front in boxes[number + 1 :])
            and self._generator.random() >= self._misses
        ]
        found = [Detection(self._shaken(box), None, 1.0) for box in seen]
        found += [Detection(box, None, 1.0) for box in self.extra(self.time_s)]
        return sorted(found, key=lambda one: -one.box[2] * one.box[3])

    def _shaken(self, box: Box) -> Box:
        across, down, growth = self._generator.normal(0, self._jitter, 3) if self._jitter else (0.0, 0.0, 0.0)
        side = box[2] * (1 + growth)
        middle = box[0] + box[2] / 2 + across * box[2], box[1] + box[3] / 2 + down * box[2]
        return middle[0] - side / 2, middle[1] - side / 2, side, side
