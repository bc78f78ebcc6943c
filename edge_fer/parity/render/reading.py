"""Reads a report's JSON where anything may be absent, and writes its values for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DASH = "–"
MISSING = "not measured"
MOST = 1e12
"""Beyond every figure that a report measures: what is larger is no number to draw or to reckon with."""
LEAST = 1e-100
"""What is smaller is as good as zero, and nothing to divide by."""
DEEPEST = 4
"""Levels of lists and objects within a value that are written out."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value of parsed JSON. What is not there, or not of the kind asked for, reads as absent."""

    raw: object

    def __getitem__(self, key: str) -> Value:
        return Value(self.raw.get(key)) if isinstance(self.raw, Mapping) else Value(None)

    def __bool__(self) -> bool:
        """Whether there is something: an empty list or object is nothing, a zero is something."""
        return self.raw is not None and self.raw != {} and self.raw != []

    @property
    def number(self) -> float | None:
        """The number, if it is finite and not beyond all measurement, else None."""
        if isinstance(self.raw, bool) or not isinstance(self.raw, (int, float)):
            return None
        if not abs(self.raw) <= MOST:  # nor is NaN
            return None
        return float(self.raw) if abs(self.raw) >= LEAST else 0.0

    @property
    def text(self) -> str:
        """The value in words, a dash for what is absent."""
        return self._text(DEEPEST)

    def _text(self, levels: int) -> str:
        if self.raw is None or self.raw == "":
            return DASH
        if isinstance(self.raw, bool):
            return "yes" if self.raw else "no"
        if isinstance(self.raw, (list, tuple, Mapping)) and not levels:
            return "…"
        if isinstance(self.raw, (list, tuple)):
            return ", ".join(item._text(levels - 1) for item in self.items) or DASH
        if isinstance(self.raw, Mapping):
            return ", ".join(f"{key} {item._text(levels - 1)}" for key, item in self.pairs) or DASH
        return f"{self.raw:.4g}" if isinstance(self.raw, float) else str(self.raw)

    @property
    def items(self) -> list[Value]:
        """The elements of a list."""
        return [Value(item) for item in self.raw] if isinstance(self.raw, (list, tuple)) else []

    @property
    def object(self) -> Mapping[str, object]:
        """The object, an empty one for what is none."""
        return self.raw if isinstance(self.raw, Mapping) else {}

    @property
    def pairs(self) -> list[tuple[str, Value]]:
        """The keys and values of an object."""
        if not isinstance(self.raw, Mapping):
            return []
        return [(str(key), Value(item)) for key, item in self.raw.items()]

    @property
    def numbers(self) -> list[float]:
        """The elements of a list of numbers; empty when one of them is none."""
        found = [item.number for item in self.items]
        known = [number for number in found if number is not None]
        return known if len(known) == len(found) else []

    @property
    def interval(self) -> tuple[float, float] | None:
        """The two bounds."""
        bounds = self.numbers
        return (bounds[0], bounds[1]) if len(bounds) == 2 else None


def count(value: float | None) -> str:
    """Write a number of things: 3,553."""
    return DASH if value is None else f"{value:,.0f}"


def percent(value: float | None, decimals: int = 2) -> str:
    """Write a fraction 0-1 as percent: 83.48%."""
    return DASH if value is None else f"{value:.{decimals}%}"


def points(value: float | None) -> str:
    """Write a difference of two fractions in percentage points: -0.14 points."""
    return DASH if value is None else f"{minus(f'{value * 100:+.2f}')} points"


def small(value: float | None, unit: str = "") -> str:
    """Write a number of any size with two digits that count: 3.4e-05 nat."""
    return DASH if value is None else f"{minus(f'{value:.2g}')}{unit}"


def decimal(value: float | None, decimals: int = 4, unit: str = "") -> str:
    """Write a number with a fixed number of decimals: 0.1741."""
    return DASH if value is None else f"{minus(f'{value:.{decimals}f}')}{unit}"


def minus(text: str) -> str:
    """Write the minus of a number as the sign that is as wide as a plus; not that of an exponent."""
    return f"−{text[1:]}" if text.startswith("-") else text


def difference(value: float | None, other: float | None) -> float | None:
    """Subtract, when both are there."""
    return None if value is None or other is None else value - other


def plural(number: float | None, noun: str) -> str:
    """Write a number of things with their name: 1 face, 2 faces, classes."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{count(number)} {noun}{ending}"
