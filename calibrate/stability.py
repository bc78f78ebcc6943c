"""Does it matter which faces were calibrated on? Two disjoint halves, two int8 graphs, one comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_fer.engines.base import Outputs
from edge_fer.errors import CalibrationError
from edge_fer.faces import face_hash
from edge_fer.parity import metrics

Graph = TypeVar("Graph")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """How far two int8 graphs lie apart that were calibrated on disjoint halves of the same faces.

    Attributes:
        calibration_faces: in each half.
        held_faces: that both graphs answered, none of which either was calibrated on.
        agreement: share of held faces with the same label from both, 0..1.
        divergence_mean: Jensen-Shannon divergence of `probabilities` per face, in nat.
        divergence_max: the largest of a face.
        accuracies: of the two graphs, 0..1; None without labels.
        accuracy_spread: their absolute difference.
    """

    calibration_faces: tuple[int, int]
    held_faces: int
    agreement: float
    divergence_mean: float
    divergence_max: float
    accuracies: tuple[float, float] | None
    accuracy_spread: float | None

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values for a certificate."""
        values = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def check_stability(
    quantise: Callable[[NDArray[np.uint8]], Graph],
    answer: Callable[[Graph, NDArray[np.uint8]], Outputs],
    crops: NDArray[np.uint8],
    held: NDArray[np.uint8],
    *,
    labels: NDArray[np.integer] | None = None,
    seed: int = 0,
) -> Stability:
    """Quantise on each half of the calibration faces and compare the answers of both graphs.

    Args:
        quantise: makes an int8 graph from calibration faces.
        answer: runs such a graph on faces.
        crops: (N, S, S, 3) uint8 calibration faces; they are halved by a seeded shuffle.
        held: (M, S, S, 3) uint8, faces outside them.
        labels: (M,) of the held faces, -1 for none; None: no accuracies.
        seed: of the shuffle.

    Raises:
        CalibrationError: fewer than two calibration faces, no held ones, or some that are both.
    """
    if len(crops) < 2 or not len(held):
        raise CalibrationError(
            f"expected at least 2 calibration faces and 1 held face, got {len(crops)} and {len(held)}"
        )
    common = {face_hash(crop) for crop in crops} & {face_hash(crop) for crop in held}
    if common:
        raise CalibrationError(f"expected held faces outside the calibration set, {len(common)} are in it")
    order = np.random.default_rng(seed).permutation(len(crops))
    halves = np.array_split(order, 2)
    first, second = (answer(quantise(crops[half]), held).probabilities for half in halves)
    divergence = metrics.jensen_shannon(first, second)
    accuracies = None
    if labels is not None and (labels >= 0).any():
        known = np.flatnonzero(labels >= 0)
        accuracies = (
            metrics.accuracy(first[known], labels[known]),
            metrics.accuracy(second[known], labels[known]),
        )
    return Stability(
        calibration_faces=(len(halves[0]), len(halves[1])),
        held_faces=len(held),
        agreement=1.0 - float(metrics.flips(first, second).mean()),
        divergence_mean=float(divergence.mean()),
        divergence_max=float(divergence.max()),
        accuracies=accuracies,
        accuracy_spread=None if accuracies is None else abs(accuracies[0] - accuracies[1]),
    )
