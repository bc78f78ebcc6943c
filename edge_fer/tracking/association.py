"""Tells which detection is which known face. Knows boxes, landmarks and gray patches; nothing of time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_fer.detectors.base import Box
from edge_fer.tracking.flow import Place, likeness

_LARGEST_RATIO = 1.7  # of sizes; detectors' boxes of one face differ by up to 1.3


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """A face that a detection may be.

    Attributes:
        place: where it is expected.
        look: (16, 16) float32, its patch; see `flow.patch`.
        near: a detection at this distance or less, as a share of the size, may be the face whatever it shows.
        far: so may one at this distance or less that looks like it ...
        least_alike: ... with this likeness or more.
    """

    place: Place
    look: NDArray[np.float32]
    near: float
    far: float
    least_alike: float


def associate(
    expected: Sequence[Expected], found: Sequence[Place], around: Sequence[NDArray[np.float32]]
) -> dict[int, int]:
    """Pair faces and detections one to one, the closest pair first.

    The cost of a pair is the distance as a share of the size (of the landmarks where both have them, else of
    the centres), plus the logarithm of the ratio of sizes, plus one minus `flow.likeness`.

    Args:
        expected: the known faces.
        found: the detections.
        around: their `flow.surroundings`, (22, 22) float32 each.

    Returns:
        Index of the detection by index of the face; both may be left over.
    """
    costs = sorted(
        (cost, face, detection)
        for face, known in enumerate(expected)
        for detection, (place, near) in enumerate(zip(found, around, strict=True))
        if (cost := _cost(known, place, near)) is not None
    )
    pairs: dict[int, int] = {}
    for _, face, detection in costs:
        if face not in pairs and detection not in pairs.values():
            pairs[face] = detection
    return pairs


def centre(box: Box) -> tuple[float, float]:
    """Return x, y of a box's middle."""
    return box[0] + box[2] / 2, box[1] + box[3] / 2


def _cost(known: Expected, place: Place, around: NDArray[np.float32]) -> float | None:
    """Return the cost of a pair; None: it cannot be the same face."""
    sizes = math.sqrt(known.place.box[2] * known.place.box[3]), math.sqrt(place.box[2] * place.box[3])
    ratio = max(sizes) / min(sizes)
    distance = _distance(known.place, place) / (sum(sizes) / 2)
    if ratio > _LARGEST_RATIO or distance > max(known.near, known.far):
        return None
    alike = likeness(known.look, around)
    if distance > known.near and alike < known.least_alike:
        return None
    return distance + math.log(ratio) + 1 - alike


def _distance(first: Place, second: Place) -> float:
    if first.landmarks is not None and second.landmarks is not None:
        return float(np.linalg.norm(first.landmarks - second.landmarks, axis=1).mean())
    return math.dist(centre(first.box), centre(second.box))
