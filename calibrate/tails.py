"""Exact percentiles of more values than fit into memory: only the outermost ones are kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Of all values of a tensor, over all faces, this share lies outside the range at each end. Outliers that are
# rarer cost every other value resolution.
OUTSIDE = 5e-6


class Tails:
    """The lowest and highest values of a stream whose length is known.

    Args:
        total: how many values there will be.
        outside: the share of them left out at each end.
    """

    def __init__(self, total: int, outside: float = OUTSIDE) -> None:
        self.kept = int(total * outside) + 1
        self.highest = np.empty(0, np.float32)
        self.negated_lowest = np.empty(0, np.float32)

    def add(self, values: NDArray[np.float32]) -> None:
        """Take in the next values, of any shape."""
        flat = values.ravel()
        self.highest = keep(self.highest, flat, self.kept)
        self.negated_lowest = keep(self.negated_lowest, -flat, self.kept)

    def range(self) -> tuple[float, float]:
        """Return the least and the greatest value when the outermost of the values so far are left out."""
        return -float(self.negated_lowest.min()), float(self.highest.min())


def keep(largest: NDArray[np.float32], values: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Return the `count` largest of both, unordered; fewer when there are no more."""
    if len(largest) == count:
        values = values[values > largest.min()]
    both = np.concatenate([largest, values])
    return np.partition(both, len(both) - count)[-count:] if len(both) > count else both
