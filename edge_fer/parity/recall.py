"""Recall of each class in both models, and how it changed, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_fer.parity import metrics
from edge_fer.parity.gates import Thresholds
from edge_fer.parity.metrics import FloatArray, IntArray
from edge_fer.parity.rates import change_interval, share, share_interval


def recall_rows(
    expected: FloatArray, got: FloatArray, labels: IntArray, names: Sequence[str], limits: Thresholds
) -> list[dict[str, object]]:
    """List, by class, its faces, both recalls and their paired change; None where a class has no faces.

    Args:
        expected: (N, C) distributions of the float checkpoint.
        got: (N, C) distributions of the bundle.
        labels: (N,) true labels, none missing.
        names: of the C classes.
        limits: the confidence of each two-sided interval, and the faces from which on a class is gated.
    """
    confidence = limits.confidence
    was, now = metrics.correct(expected, labels), metrics.correct(got, labels)
    faces, reference_hits, hits, lost, gained = (
        np.bincount(labels[chosen], minlength=len(names)).tolist()
        for chosen in (np.full(len(labels), True), was, now, was & ~now, now & ~was)
    )
    return [
        {
            "label": name,
            "faces": faces[index],
            "recall": share(hits[index], faces[index]),
            "reference_recall": share(reference_hits[index], faces[index]),
            "interval": share_interval(hits[index], faces[index], confidence),
            "reference_interval": share_interval(reference_hits[index], faces[index], confidence),
            "change": share(gained[index] - lost[index], faces[index]),
            "change_interval": change_interval(lost[index], gained[index], faces[index], limits),
            "gated": faces[index] >= limits.recall_faces,
        }
        for index, name in enumerate(names)
    ]
