"""Draws the small pictures of tables and cards: a gate's margin, paired bars, gates side by side."""

from __future__ import annotations

from collections.abc import Sequence

from edge_fer.parity.render.elements import style
from edge_fer.parity.render.markup import Markup
from edge_fer.parity.render.plot import shorten
from edge_fer.parity.render.reading import Value, percent
from edge_fer.parity.render.summary import GateRow
from edge_fer.parity.render.svg import Drawing, Point, Scale

ROOM = 1.35
"""How far beyond the threshold a scale reaches at least, as a multiple of it."""


def domain(rows: Sequence[GateRow]) -> Point | None:
    """Return the span of values that shows these gates of one kind, and their thresholds."""
    shown = [(row, row.bounds) for row in rows if row.bounds is not None and row.limit is not None]
    if not shown:
        return None
    values = [each for row, bounds in shown for each in (*bounds, row.limit or 0.0, row.number or 0.0)]
    direction = shown[0][0].direction
    if direction == "at least":
        pad = 0.15 * (max(values) - min(values)) or 1.0
        return min(values) - pad, max(values) + pad
    limit = max(abs(row.limit or 0.0) for row, _ in shown)
    far = max(limit * ROOM, 1.08 * max(abs(value) for value in values)) or 1.0
    return (-far, far) if direction == "within" else (min(0.0, *values), far)


def margin(row: GateRow, name: str) -> Markup | None:
    """Draw where a gate's interval stands to its threshold; None when there is nothing to draw."""
    span = domain([row])
    if span is None:
        return None
    drawing = Drawing(26.0, 180.0)
    scale = Scale(*span, 6.0, 174.0)
    drawing.line((scale.start, 13), (scale.stop, 13), "track")
    _allowed(drawing, scale, row, (4.0, 18.0))
    _interval(drawing, scale, row, 13.0)
    described = f"Measured {row.value}, interval {row.interval}, threshold {row.threshold}: {row.verdict}."
    return drawing.svg(name, f"Margin of {row.name}", described, "margin")


def _allowed(drawing: Drawing, scale: Scale, row: GateRow, rows: Point) -> None:
    """Draw the values that a gate allows as a field with an edge at the threshold."""
    limit = row.limit or 0.0
    ends = {
        "at most": (scale.start, scale(limit)),
        "at least": (scale(limit), scale.stop),
        "within": (scale(-limit), scale(limit)),
    }[row.direction]
    top, height = rows
    drawing.box((ends[0], top), (ends[1] - ends[0], height), "allowed")
    edges = ends if row.direction == "within" else (scale(limit),)
    for edge in edges:
        drawing.line((edge, top - 3), (edge, top + height + 3), "limit")


def _interval(drawing: Drawing, scale: Scale, row: GateRow, y: float) -> None:
    if row.bounds is not None:
        left, right = (scale.inside(bound) for bound in row.bounds)
        drawing.line((left, y), (right, y), "whisker plain")
        for end in (left, right):
            drawing.line((end, y - 4), (end, y + 4), "whisker plain")
    if row.number is not None:
        x = scale.inside(row.number)
        drawing.add("path", d=f"M{x:.2f} {y - 5:.2f}l5 5l-5 5l-5-5z", class_=f"point {style(row.verdict)}")


def side_by_side(gates: Sequence[tuple[tuple[str, ...], GateRow]], name: str) -> Markup | None:
    """Draw one gate of several reports on one axis, given as pairs of a report's name, in lines, and gate."""
    span = domain([row for _, row in gates])
    if span is None:
        return None
    lines = max(len(title) for title, _ in gates)
    step, left, width = 34.0 + 12 * (lines - 1), 150.0, 400.0
    drawing = Drawing(step * len(gates) + 24, width)
    scale = Scale(*span, left, width - 8)
    for index, (title, row) in enumerate(gates):
        top = step * index + 6
        drawing.write((2, top + 13), shorten(title[0], 22), "tick strong")
        for line, text in enumerate((*title[1:], f"{row.value} {row.verdict}"), 1):
            drawing.write((2, top + 13 * (1 + line)), shorten(text, 27), "note")
        if row.limit is not None:
            _allowed(drawing, scale, row, (top + 2, step - 8))
        _interval(drawing, scale, row, top + step / 2 - 2)
    limit = next((row for _, row in gates if row.limit is not None), None)
    if limit is not None:
        x, text = scale(limit.limit or 0.0), f"threshold {limit.threshold}"
        right = x > (left + width) / 2
        anchor, shift = ("end", 4) if right else ("start", -4)
        drawing.write((x + shift, drawing.height - 5), text, "note", anchor=anchor)
    said = "; ".join(
        f"{' '.join(title)}: {row.value} ({row.interval}), {row.verdict}" for title, row in gates
    )
    return drawing.svg(name, f"{gates[0][1].name}, all reports", said)


def paired_bars(face: Value, labels: Sequence[str], top: float, name: str) -> Markup | None:
    """Draw the distributions of both models over one face as paired bars; None when they are not there.

    Args:
        face: one of the worst faces.
        labels: of the classes.
        top: the probability at the end of the scale.
        name: what the ids start with.
    """
    pairs = [face[key].numbers for key in ("reference", "bundle")]
    before = [face[key].numbers for key in ("reference_primary", "primary")]
    if not labels or any(len(values) != len(labels) for values in pairs):
        return None
    step, left, right = 28.0, 72.0, 268.0
    drawing = Drawing(step * len(labels) + 4, 300.0)
    scale = Scale(0, top, left, right)
    drawing.line((left, 0), (left, step * len(labels)), "axis")
    for index, label in enumerate(labels):
        top = step * index + 3
        drawing.write((left - 6, top + 14), shorten(label, 11), "tick", anchor="end")
        for row, series in enumerate(("float", "bundle")):
            value, y, far = pairs[row][index], top + row * 11, pairs[row][index]
            drawing.box((left, y), (scale.inside(value) - left, 9), f"bar {series}")
            if len(before[row]) == len(labels):
                far = max(value, before[row][index])
                x = scale.inside(before[row][index])
                drawing.line((x, y - 0.5), (x, y + 9.5), "primary")
            if value >= 0.01:
                drawing.write((scale.inside(far) + 4, y + 8.5), percent(value, 0), "note")
    said = "; ".join(
        f"{label} {percent(a, 0)} and {percent(b, 0)}" for label, a, b in zip(labels, *pairs, strict=True)
    )
    return drawing.svg(
        name, "Distributions of the float checkpoint and the bundle", f"Float and bundle: {said}.", "bars"
    )
