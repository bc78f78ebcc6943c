"""The faces to look at first: those whose label flipped, then those whose distribution moved furthest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_fer.parity import metrics

if TYPE_CHECKING:
    from edge_fer.engines.base import Outputs
    from edge_fer.samples import Reference

MOST_FACES = 24


def worst_faces(reference: Reference, outputs: Outputs) -> list[dict[str, object]]:
    """List at most `MOST_FACES` faces: flips before all others, in order of divergence and then of rows.

    A face that did not move at all is not listed.

    Args:
        reference: labels (N,), -1 for none, hashes and the float checkpoint's outputs.
        outputs: the bundle's, N rows in the same order.
    """
    expected, got = reference.probabilities, outputs.probabilities
    divergence, flipped = metrics.jensen_shannon(expected, got), metrics.flips(expected, got)
    order = np.lexsort((-divergence, ~flipped))  # stable: ties stay in the order of the rows
    chosen = [row for row in order[:MOST_FACES].tolist() if flipped[row] or divergence[row] > 0]
    before, after = metrics.top1(expected), metrics.top1(got)
    names = reference.names
    return [
        {
            "face": row,
            "hash": str(reference.hashes[row]),
            "label": names[reference.labels[row]] if reference.labels[row] >= 0 else None,
            "from": names[before[row]],
            "to": names[after[row]],
            "js": float(divergence[row]),
            "reference": expected[row].tolist(),
            "bundle": got[row].tolist(),
            "reference_primary": reference.primary[row].tolist(),
            "primary": outputs.primary[row].tolist(),
        }
        for row in chosen
    ]
