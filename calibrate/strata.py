"""The order in which faces are taken for calibration: classes in turn, within them strata of confidence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 5


def stratified_order(
    labels: NDArray[np.int64], seed: int, confidence: NDArray[np.float32] | None = None
) -> list[int]:
    """Return all faces so that every prefix is as balanced over the classes as the set allows.

    The classes take turns. Within a class the order is a seeded shuffle; with `confidence` every prefix of it
    is balanced over that class's own strata, too. Unlabelled faces (-1) are one class.

    Args:
        labels: (N,) class of each face.
        seed: of the shuffles.
        confidence: (N,) how sure a float model is of each face.
    """
    generator = np.random.default_rng(seed)
    queues = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if confidence is None:
            queues.append([int(face) for face in generator.permutation(members)][::-1])
        else:
            queues.append(spread(members, confidence[members], generator))
    return in_turns(queues)


def spread(
    members: NDArray[np.int64], confidence: NDArray[np.float32], generator: np.random.Generator
) -> list[int]:
    """Return the members so that every prefix is balanced over equal quantile bins of their confidence.

    Both the order of the bins and that within a bin are shuffled.
    """
    ranked = members[np.argsort(confidence, kind="stable")]
    bins = [generator.permutation(part).tolist() for part in np.array_split(ranked, BINS)]
    return in_turns([bins[number] for number in generator.permutation(BINS)])


def in_turns(queues: list[list[int]]) -> list[int]:
    """Take the first of every queue, then the second of every queue that has one, and so on."""
    longest = max((len(queue) for queue in queues), default=0)
    return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]
