"""Subject-independent folds: nobody's faces are in both parts of one."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from edge_fer.errors import InputError


def assign_folds(subjects: Sequence[str], folds: int, seed: int = 0) -> dict[str, int]:
    """Return the fold of every subject, 1 to `folds`, so that folds have about as many faces each.

    The subject with the most faces goes first, each into the fold that is the emptiest so far; chance decides
    among subjects of as many faces.

    Args:
        subjects: who each face is of.
        folds: how many.
        seed: of the order among subjects of as many faces.

    Raises:
        InputError: fewer subjects than folds.
    """
    faces = Counter(subjects)
    if not 2 <= folds <= len(faces):
        raise InputError(
            f"expected 2 folds or more, one subject each at least, got {folds} of {len(faces)} subjects"
        )
    order = sorted(faces)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda subject: -faces[subject])
    filled = [0] * folds
    found: dict[str, int] = {}
    for subject in order:
        emptiest = filled.index(min(filled))
        found[subject] = emptiest + 1
        filled[emptiest] += faces[subject]
    return found


def fold_rows(subjects: Sequence[str], fold: int, folds: int, seed: int = 0) -> tuple[list[int], list[int]]:
    """Return which faces are trained on and which are validated on in fold `fold` of 1 to `folds`.

    Raises:
        InputError: fewer subjects than folds.
    """
    places = assign_folds(subjects, folds, seed)
    train = [row for row, subject in enumerate(subjects) if places[subject] != fold]
    valid = [row for row, subject in enumerate(subjects) if places[subject] == fold]
    return train, valid
