"""Where changed labels went: from which label to which, by class, and by how sure the float model was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edge_fer.parity import metrics
from edge_fer.parity.metrics import FloatArray, IntArray
from edge_fer.parity.rates import share, share_interval

BANDS = (0.0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Borders of the confidence bands; a border belongs to the band above it, 1 to the last."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What became of the label of each of N faces.

    Attributes:
        before: (N,) int64, top label of the float checkpoint.
        after: (N,) int64, top label of the bundle.
        flipped: (N,) bool, whether the two differ.
        outcomes: to_wrong, to_right and between_wrong, each (N,) bool, which part the flips of labelled
            faces; None without any label.
    """

    before: NDArray[np.int64]
    after: NDArray[np.int64]
    flipped: NDArray[np.bool_]
    outcomes: Mapping[str, NDArray[np.bool_]] | None

    @classmethod
    def of(cls, expected: FloatArray, got: FloatArray, labels: IntArray | None = None) -> Changes:
        """Compare the top labels of two models.

        Args:
            expected: (N, C) distributions of the float checkpoint.
            got: (N, C) distributions of the bundle.
            labels: (N,) true labels, -1 for a face without one; None for no labels.
        """
        before, after = metrics.top1(expected), metrics.top1(got)
        flipped = before != after
        if labels is None or not (labels >= 0).any():
            return cls(before, after, flipped, None)
        was, now = before == labels, after == labels
        outcomes = {
            "to_wrong": flipped & was,
            "to_right": flipped & now,
            "between_wrong": flipped & (labels >= 0) & ~was & ~now,
        }
        return cls(before, after, flipped, outcomes)


def flip_matrix(changes: Changes, classes: int) -> NDArray[np.int64]:
    """Count faces by the reference's top label (rows) and the bundle's (columns), (C, C) int64."""
    cells = changes.before * classes + changes.after
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def flips_by_direction(matrix: NDArray[np.int64], names: Sequence[str]) -> dict[str, int]:
    """List the pairs `from -> to` of different labels that occur, most frequent first, then by name."""
    moved = [
        (f"{names[before]} -> {names[after]}", int(matrix[before, after]))
        for before, after in zip(*np.nonzero(matrix), strict=True)
        if before != after
    ]
    return dict(sorted(moved, key=lambda item: (-item[1], item[0])))


def flips_by_class(changes: Changes, names: Sequence[str], confidence: float) -> list[dict[str, object]]:
    """Count the flips of each class, by the reference's top label; C rows.

    Args:
        changes: of N faces.
        names: of the C classes.
        confidence: of each two-sided interval.
    """
    return _rows(changes, changes.before, [{"label": name} for name in names], confidence)


def flips_by_confidence(changes: Changes, expected: FloatArray, confidence: float) -> list[dict[str, object]]:
    """Count the flips of each band of the reference's top probability; a row for each of `BANDS`.

    Args:
        changes: of N faces.
        expected: (N, C) distributions of the float checkpoint.
        confidence: of each two-sided interval.
    """
    top = np.max(expected, axis=1).astype(np.float64)
    bands = np.searchsorted(BANDS[1:-1], top, side="right")
    heads: list[dict[str, object]] = [{"from": lower, "to": upper} for lower, upper in pairwise(BANDS)]
    return _rows(changes, bands, heads, confidence)


def _rows(
    changes: Changes, group: NDArray[np.int64], heads: Sequence[Mapping[str, object]], confidence: float
) -> list[dict[str, object]]:
    """Put under each head what happened to the faces of its group; `group` (N,) indexes `heads`."""

    def count(chosen: NDArray[np.int64]) -> list[int]:
        counted: list[int] = np.bincount(chosen, minlength=len(heads)).tolist()
        return counted

    faces, flips = count(group), count(group[changes.flipped])
    outcomes: dict[str, Sequence[int | None]] = dict.fromkeys(
        ("to_wrong", "to_right", "between_wrong"), [None] * len(heads)
    )
    if changes.outcomes is not None:
        outcomes |= {name: count(group[chosen]) for name, chosen in changes.outcomes.items()}
    return [
        {
            **head,
            "faces": faces[index],
            "flips": flips[index],
            "share": share(flips[index], faces[index]),
            "interval": share_interval(flips[index], faces[index], confidence),
            **{name: counts[index] for name, counts in outcomes.items()},
        }
        for index, head in enumerate(heads)
    ]
