"""How a report reads on a terminal: the rows of its table, and the exit code of its verdict."""

from __future__ import annotations

from collections.abc import Iterable

from edge_fer.errors import GateFailed
from edge_fer.parity import gates as gate
from edge_fer.parity.gates import Gate

COLUMNS = ("gate", "value", "interval", "threshold", "verdict", "reason")

_SIGNS = {
    gate.ACCURACY: ">= ",
    gate.CALIBRATION: "+- ",
    gate.RECALL: ">= ",
    gate.HEAD: "+- ",
    gate.SPEED: ">= ",
}
_UNITS = {
    gate.PREPROCESS: "{:.0f}",
    gate.ACCURACY: "{:.4f}",
    gate.FLIPS: "{:.2%}",
    gate.SURE_FLIPS: "{:.2%}",
    gate.DISTRIBUTION: "{:.2g} nat",
    gate.CALIBRATION: "{:+.4f}",
    gate.RECALL: "{:+.4f}",
    gate.HEAD: "{:+.2%}",
    gate.SPEED: "{:.2f}x",
}


def exit_code(verdict: str, strict: bool) -> int:
    """Return the command's exit code: 3 for failed, and for undecided when `strict`, else 0."""
    return GateFailed.exit_code if verdict == "failed" or (strict and verdict == "undecided") else 0


def table_rows(gates: Iterable[Gate]) -> list[tuple[str, ...]]:
    """Render each gate as the texts of one table row, in the order of `COLUMNS`; absent values are empty."""
    return [_row(one) for one in gates]


def _row(one: Gate) -> tuple[str, ...]:
    unit = _UNITS.get(one.name, "{:.2g}")
    value = "" if one.value is None else unit.format(one.value)
    interval = "" if one.interval is None else " .. ".join(unit.format(bound) for bound in one.interval)
    sign = _SIGNS.get(one.name, "<= ")
    threshold = "" if one.threshold is None else sign + unit.format(one.threshold).removeprefix("+")
    return one.name, value, interval, threshold, one.verdict, one.reason
