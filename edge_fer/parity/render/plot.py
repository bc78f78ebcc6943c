"""What a plot of a report is: its drawing, how to read it, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_fer.parity.render.markup import Markup
from edge_fer.parity.render.reading import Value, percent

FLOAT = "float checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One figure of the page.

    Attributes:
        title: its heading.
        svg: the drawing.
        reading: one or two sentences on how to read it, and what it cannot show.
        columns: of the table with the numbers behind it.
        rows: of that table.
    """

    title: str
    svg: Markup
    reading: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def bundle_name(report: Value) -> str:
    """Return what a legend calls the bundle: int8 bundle."""
    return f"{shorten(report['bundle']['precision'].text, 12)} bundle"


def series_legend(report: Value) -> list[tuple[str, str]]:
    """Return the legend of a plot that shows both models."""
    return [("float", FLOAT), ("bundle", bundle_name(report))]


def shorten(text: str, most: int = 10) -> str:
    """Cut a label to the room it has."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def whole_percent(value: float) -> str:
    """Write a tick of an axis of fractions 0-1: 20%, and 2.5% where whole numbers would repeat."""
    return percent(value, 0) if abs(value * 100 - round(value * 100)) < 1e-6 else f"{value * 100:.2g}%"


def interval_text(value: Value) -> str:
    """Write the bounds of a share: 0.40% to 0.85%."""
    bounds = value.interval
    return "–" if bounds is None else f"{percent(bounds[0])} to {percent(bounds[1])}"
