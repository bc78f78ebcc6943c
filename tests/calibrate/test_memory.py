"""What calibration found is found once for the same faces and the same way of looking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from calibrate.memory import Memory
from calibrate.recipe import Recipe
from edge_fer.errors import CalibrationError

RECIPE = Recipe()


def test_faces_are_run_once_for_every_recipe_with_the_same_ranges() -> None:
    ran: list[tuple[str, int]] = []

    def prepare(
        crops: NDArray[np.uint8], *, recipe: Recipe, progress: Callable[[int], None] | None
    ) -> tuple[str, int]:
        if progress is not None:
            progress(len(crops))
        ran.append((recipe.ranges, int(crops.sum())))
        return ran[-1]

    seen: list[int] = []
    memory = Memory(prepare)
    faces = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    found = memory(faces, RECIPE, seen.append)
    other = replace(RECIPE, weights="s8-7bit", symmetric=True, float_modules=frozenset({"a"}))
    assert memory(faces.copy(), other, seen.append) is found and seen == [2]
    assert memory(faces[:1], RECIPE) == ("minmax", 66)
    assert memory(faces, replace(RECIPE, ranges="mean")) == ("mean", 276)
    assert memory(faces[:1].copy(), other) == ("minmax", 66) and len(ran) == 3


def test_what_failed_is_not_remembered() -> None:
    def refuse(*_: object, **__: object) -> None:
        raise CalibrationError("nothing to quantise")

    memory = Memory(refuse)
    for _ in range(2):
        with pytest.raises(CalibrationError, match="nothing to quantise"):
            memory(np.zeros((1, 2, 2, 3), np.uint8), RECIPE)
