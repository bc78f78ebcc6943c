"""Remembers what calibration found, so that quantising again with other blocks in float takes seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from calibrate.recipe import Recipe

P = TypeVar("P", covariant=True)


class Prepare(Protocol[P]):
    """Finds on faces (N, S, S, 3) uint8 what a recipe starts from; of the recipe only `ranges` counts."""

    def __call__(
        self, crops: NDArray[np.uint8], *, recipe: Recipe, progress: Callable[[int], None] | None
    ) -> P:
        """Do it, telling the number of faces seen."""
        ...


class Memory(Generic[P]):
    """What one graph's calibration found, by the way of finding ranges and by the faces.

    Args:
        prepare: called where nothing is known yet.
    """

    def __init__(self, prepare: Prepare[P]) -> None:
        self.prepare = prepare
        self.known: dict[tuple[str, bytes], P] = {}

    def __call__(
        self, crops: NDArray[np.uint8], recipe: Recipe, progress: Callable[[int], None] | None = None
    ) -> P:
        """Return what was found on these faces in the recipe's way, finding it now if nobody has."""
        key = (recipe.ranges, hashlib.sha256(crops.tobytes()).digest())
        if key not in self.known:
            self.known[key] = self.prepare(crops, recipe=recipe, progress=progress)
        return self.known[key]
