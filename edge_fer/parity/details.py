"""Builds the `details` of a report: all that stands behind its gates and figures, in plain Python values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_fer.parity.curves import curves
from edge_fer.parity.figures import plain
from edge_fer.parity.flips import (
    Changes,
    flip_matrix,
    flips_by_class,
    flips_by_confidence,
    flips_by_direction,
)
from edge_fer.parity.gates import Thresholds
from edge_fer.parity.head import abstention_figures, head_figures
from edge_fer.parity.recall import recall_rows
from edge_fer.parity.worst import worst_faces

if TYPE_CHECKING:
    from edge_fer.engines.base import Outputs
    from edge_fer.samples import Reference


def details(
    reference: Reference, outputs: Outputs, threshold: float, origin: str, limits: Thresholds
) -> dict[str, object]:
    """Describe how the bundle's outputs differ from the float checkpoint's on the same faces.

    Intervals are two-sided at `limits.confidence`. What needs labels is of the labelled faces, and None when
    there are none. What is not finite is None.

    Args:
        reference: labels (N,), -1 for a face without one, and the checkpoint's outputs.
        outputs: the bundle's outputs, N rows in the same order, each a distribution.
        threshold: of reliability, below which a face is abstained from.
        origin: where the threshold comes from, in words.
        limits: the confidence of the intervals, and the faces from which on a class is gated.

    Returns:
        the object `details` of parity.json, without `attribution`; empty for no faces.
    """
    expected, got, labels = reference.probabilities, outputs.probabilities, reference.labels
    if len(got) == 0:
        return {}
    names, confidence = reference.names, limits.confidence
    known = np.flatnonzero(labels >= 0)
    changes = Changes.of(expected, got, labels)
    matrix = flip_matrix(changes, len(names))
    recall = recall_rows(expected[known], got[known], labels[known], names, limits) if len(known) else None
    found = {
        "labels": list(names),
        "recall": recall,
        "flip_matrix": matrix.tolist(),
        "flips_by_direction": flips_by_direction(matrix, names),
        "flips_by_class": flips_by_class(changes, names, confidence),
        "flips_by_confidence": flips_by_confidence(changes, expected, confidence),
        "head": head_figures(reference, outputs, confidence),
        "abstention": abstention_figures(reference, outputs, threshold, origin, confidence),
        "curves": curves(reference, outputs),
        "worst": worst_faces(reference, outputs),
    }
    return {key: plain(value) for key, value in found.items()}
