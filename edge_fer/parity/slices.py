"""The same comparison for every value of a column: gender, age band, source ..."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge_fer.errors import InputError
from edge_fer.parity.comparison import compare
from edge_fer.parity.figures import plain

if TYPE_CHECKING:
    from edge_fer.engines.base import Outputs
    from edge_fer.parity.gates import Thresholds
    from edge_fer.samples import Reference

MAX_VALUES = 40
NO_VALUE = "(none)"
FIGURES = (
    "labelled_faces",
    "accuracy",
    "reference_accuracy",
    "mean_recall",
    "reference_mean_recall",
    "ece",
    "reference_ece",
    "flips",
    "js_mean",
    "reliability_shift_mean",
)


def check_column(column: str, values: Sequence[str]) -> None:
    """Refuse a column that does not make slices.

    Raises:
        InputError: it has one value, or more than 40.
    """
    distinct = len(set(values))
    if not 2 <= distinct <= MAX_VALUES:
        raise InputError(
            f"--slice {column}: expected 2 to {MAX_VALUES} different values in the column, got {distinct}: "
            "sort the faces into bands"
        )


def make_slice(
    reference: Reference,
    outputs: Outputs,
    column: str,
    values: Sequence[str],
    min_reliability: float,
    limits: Thresholds,
) -> dict[str, object]:
    """Compare the faces of every value of a column on their own.

    The verdicts are not corrected for their number, which the note states: a slice is a place to look at, and
    the report's verdict does not depend on it.

    Args:
        reference: the float checkpoint's outputs, N faces.
        outputs: the bundle's, N rows in the same order.
        column: its name.
        values: of each of the N faces.
        min_reliability: the abstention threshold of the whole set.
        limits: thresholds.
    """
    cells = np.array([value or NO_VALUE for value in values])
    found = []
    for value in sorted(set(cells.tolist())):
        rows = np.flatnonzero(cells == value)
        report = compare(
            reference.rows(rows), outputs.rows(rows), thresholds=limits, min_reliability=min_reliability
        )
        figures = {name: report.figures.get(name) for name in FIGURES}
        found.append(
            {
                "value": value,
                "faces": report.faces,
                "gates": [gate.to_json() for gate in report.gates],
                "figures": plain(figures),
            }
        )
    return {"column": column, "note": _note(found), "values": found}


def _note(found: Sequence[Mapping[str, object]]) -> str:
    verdicts = [
        gate["verdict"]
        for one in found
        for gate in (one["gates"] if isinstance(one["gates"], list) else [])
        if gate["verdict"] != "not run"
    ]
    failed = verdicts.count("failed")
    return (
        f"{len(verdicts)} gates in {len(found)} slices, {failed} failed, "
        f"{verdicts.count('undecided')} undecided. Each bound holds at 95 % by itself: of as many figures "
        f"that lie exactly on their threshold about {round(0.05 * len(verdicts), 1):g} would fail by chance. "
        "Nothing is corrected for their number, and slices do not decide the report's verdict."
    )
