"""Draws what became of the labels: which flipped, where, how sure the float model was, recall per class."""

from __future__ import annotations

import math

from edge_fer.parity.render.plot import (
    Plot,
    bundle_name,
    interval_text,
    series_legend,
    shorten,
    whole_percent,
)
from edge_fer.parity.render.reading import Value, count, percent, plural, points
from edge_fer.parity.render.svg import BOTTOM, LEFT, RIGHT, TOP, WIDTH, Chart, Drawing, Scale, round_up

MATRIX_LEFT, MATRIX_TOP, MATRIX_RIGHT = 72.0, 84.0, 26.0
KINDS = (("to_wrong", "right to wrong"), ("between_wrong", "wrong to wrong"), ("to_right", "wrong to right"))


def flip_matrix(report: Value, name: str) -> Plot | None:
    """Draw the counts of label pairs; None when they were not measured."""
    details = report["details"]
    labels = [label.text for label in details["labels"].items]
    counts = [row.numbers for row in details["flip_matrix"].items]
    if not labels or len(counts) != len(labels) or any(len(row) != len(labels) for row in counts):
        return None
    flips = sum(sum(row) for row in counts) - sum(counts[index][index] for index in range(len(labels)))
    cell = (WIDTH - MATRIX_LEFT - MATRIX_RIGHT) / len(labels)
    height = min(cell, 34.0)
    drawing = Drawing(MATRIX_TOP + height * len(labels) + 6)
    drawing.write((MATRIX_LEFT, 14), f"columns: label of the {bundle_name(report)}", "name")
    drawing.write((2, MATRIX_TOP - 8), "rows: float", "name")
    most = max([n for i, row in enumerate(counts) for j, n in enumerate(row) if i != j] or [0])
    for i, label in enumerate(labels):
        across, down = MATRIX_LEFT + cell * i, MATRIX_TOP + height * i
        drawing.write((MATRIX_LEFT - 6, down + height / 2 + 4), shorten(label), "tick", anchor="end")
        at = f"{across + cell / 2 + 2:.1f} {MATRIX_TOP - 6:.1f}"
        drawing.add("text", shorten(label), class_="tick", transform=f"translate({at}) rotate(-55)")
        for j, number in enumerate(counts[i]):
            _cell(drawing, (MATRIX_LEFT + cell * j, down), (cell, height), number, None if i == j else most)
    directions = details["flips_by_direction"].pairs[: len(labels) ** 2]  # as many as there are cells
    return Plot(
        title="Which labels flipped",
        svg=drawing.svg(name, "Flip matrix", _flip_description(flips, directions)),
        reading=(
            "Each row holds the faces that the float model gave one label, by the bundle's label for them. "
            "The framed diagonal is what stayed; every shaded cell is a change, fuller for more. It shows "
            "where labels moved, not which of the two models is right."
        ),
        columns=("change", "faces"),
        rows=[(direction, number.text) for direction, number in directions] or [("no label changed", "0")],
    )


def _cell(
    drawing: Drawing,
    corner: tuple[float, float],
    size: tuple[float, float],
    number: float,
    most: float | None,
) -> None:
    """Draw one cell; `most` is the largest number off the diagonal, None on it."""
    x, y = corner[0] + 1, corner[1] + 1
    kept, empty = most is None, number <= 0
    shade = None if kept or empty else 0.14 + 0.36 * math.sqrt(number / most) if most else None
    drawing.box(
        (x, y), (size[0] - 2, size[1] - 2), "kept" if kept else "none" if empty else "flip", opacity=shade
    )
    if size[0] >= 22:
        at = (corner[0] + size[0] / 2, corner[1] + size[1] / 2 + 4)
        drawing.write(at, "·" if empty else count(number), "kept" if kept else "", anchor="middle")


def _flip_description(flips: float, directions: list[tuple[str, Value]]) -> str:
    most = "; ".join(f"{direction}: {number.text}" for direction, number in directions[:3])
    return f"{plural(flips, 'label')} changed. {f'Most often {most}.' if most else ''}"


def confidence_scatter(report: Value, name: str) -> Plot | None:
    """Draw the bundle's probability of the float model's label against the float model's own."""
    found = report["details"]["curves"]["confidence"]
    edges, counts = found["edges"].numbers, [row.numbers for row in found["counts"].items]
    cells = len(edges) - 1
    if cells < 1 or len(counts) != cells or any(len(row) != cells for row in counts):
        return None
    chart = Chart(350)
    chart.scale((edges[0], edges[-1]), (edges[0], edges[-1]))
    chart.axes(("the float model's top probability", "the bundle's, same label"), (whole_percent,) * 2)
    most = max(max(row) for row in counts)
    for i, row in enumerate(counts):
        for j, number in enumerate(row):
            if number > 0:
                shade = 0.28 + 0.67 * math.log1p(number) / math.log1p(most)
                corner = chart.at(edges[i], edges[j + 1])
                right, bottom = chart.at(edges[i + 1], edges[j])
                chart.box(corner, (right - corner[0], bottom - corner[1]), "density", opacity=shade)
    chart.line(chart.at(edges[0], edges[0]), chart.at(edges[-1], edges[-1]), "ideal")
    flips = [pair for pair in (each.numbers for each in found["flips"].items) if len(pair) == 2]
    for x, y in flips:
        chart.mark((chart.x.inside(x), chart.y.inside(y)), "cross")
    chart.legend([("density", "faces (fuller: more)"), ("cross", "label changed")])
    total = sum(sum(row) for row in counts)
    near = sum(n for i, row in enumerate(counts) for j, n in enumerate(row) if abs(i - j) <= 1)
    return Plot(
        title="Confidence, face by face",
        svg=chart.svg(
            name,
            "Confidence of the float model against the bundle",
            f"Of {plural(total, 'face')} {count(near)} on the diagonal or in the cells beside it; changed "
            f"labels that are marked: {count(len(flips))}.",
        ),
        reading=(
            "On the diagonal both models are equally sure of the float model's label. Crosses are faces "
            "whose label changed: harmless ones sit at the lower left, where the float model was unsure; a "
            "cross at the right means a sure answer was lost."
            f"{_drawn_part(len(flips), report['figures']['flips'].number)}"
        ),
        columns=("faces", "number"),
        rows=[
            ("all", count(total)),
            ("within one cell of the diagonal", count(near)),
            ("label changed, drawn", count(len(flips))),
        ],
    )


def _drawn_part(drawn: int, changed: float | None) -> str:
    """Say how many of the changed labels are drawn where these are not all."""
    if changed is None or changed <= drawn:
        return ""
    return f" {count(drawn)} of the {count(changed)} are drawn, spread evenly over the faces."


def recall_by_class(report: Value, name: str) -> Plot | None:
    """Draw the recall of both models per class with its intervals."""
    rows = report["details"]["recall"].items
    if all(row[key].number is None for row in rows for key in ("recall", "reference_recall")):
        return None
    step = 31.0
    drawing = Drawing(TOP + step * len(rows) + BOTTOM)
    left, bottom = 110.0, TOP + step * len(rows)
    scale = Scale(0, 1, left, WIDTH - RIGHT)
    for value in scale.ticks():
        drawing.line((scale(value), TOP), (scale(value), bottom), "grid")
        drawing.write((scale(value), bottom + 16), whole_percent(value), "tick", anchor="middle")
    drawing.write(
        ((left + WIDTH - RIGHT) / 2, bottom + 36), "recall, with its interval", "name", anchor="middle"
    )
    for index, row in enumerate(rows):
        middle = TOP + step * (index + 0.5)
        drawing.write((left - 8, middle), shorten(row["label"].text, 14), "tick strong", anchor="end")
        faces = plural(row["faces"].number, "face") + ("" if row["gated"].raw is True else " *")
        drawing.write((left - 8, middle + 12), faces, "note", anchor="end")
        for series, prefix, shift in (("float", "reference_", -5.0), ("bundle", "", 6.0)):
            _whisker_row(
                drawing, scale, middle + shift, row[f"{prefix}recall"], row[f"{prefix}interval"], series
            )
    drawing.legend(series_legend(report))
    worst = min(rows, key=lambda row: row["change"].number or 0.0)
    return Plot(
        title="Recall per class",
        svg=drawing.svg(
            name,
            "Recall of both models per class",
            f"The largest loss is {points(worst['change'].number)} for {worst['label'].text}.",
        ),
        reading=(
            "The share of each true class that is found. Marks that lie apart by more than their whiskers "
            "tell of a change; overlapping whiskers do not prove that there is none, as both models saw "
            "the same faces: the gate tests the paired change. * too few faces for the gate."
        ),
        columns=("class", "faces", "float", "bundle", "change", "interval of the change"),
        rows=[
            (
                row["label"].text,
                count(row["faces"].number),
                percent(row["reference_recall"].number),
                percent(row["recall"].number),
                points(row["change"].number),
                interval_text(row["change_interval"]),
            )
            for row in rows
        ],
    )


def _whisker_row(
    drawing: Drawing, scale: Scale, y: float, value: Value, interval: Value, series: str
) -> None:
    bounds = interval.interval
    if bounds is not None:
        drawing.line((scale.inside(bounds[0]), y), (scale.inside(bounds[1]), y), f"whisker {series}")
    if value.number is not None:
        drawing.mark((scale.inside(value.number), y), series)


def flips_by_confidence(report: Value, name: str) -> Plot | None:
    """Draw the share of changed labels by the float model's confidence, and the direction of the changes."""
    rows = report["details"]["flips_by_confidence"].items
    if all(row["share"].number is None for row in rows):
        return None
    shares = [row["share"].number or 0.0 for row in rows]
    bounds = [row["interval"].interval for row in rows]
    # as high as the bars; without a flip there are only the intervals to show
    top = 1.25 * max(shares) or max([each[1] for each in bounds if each is not None] or [0.01])
    chart = Chart(312, bottom=58)
    chart.scale((0, len(rows)), (0, round_up(top)))
    chart.axes(("the float model's top probability", "labels changed"), (lambda _: "", whole_percent))
    for index, (row, share) in enumerate(zip(rows, shares, strict=True)):
        middle = chart.x(index + 0.5)
        band = f"{_bound(row['from'])}–{_bound(row['to'])}"
        chart.write((middle, chart.y.start + 14), band, "tick", anchor="middle")
        chart.write((middle, chart.y.start + 25), count(row["faces"].number), "note", anchor="middle")
        _stack(chart, index, row, share)
        interval = bounds[index]
        if interval is not None:
            ends = [(middle, chart.y.inside(bound)) for bound in interval]
            chart.line(ends[0], ends[1], "whisker plain")
    chart.write((LEFT - 6, chart.y.start + 25), "faces", "note", anchor="end")
    known = any(row[kind].number is not None for row in rows for kind, _ in KINDS)
    directions = [(kind.replace("_", "-"), title) for kind, title in KINDS]
    chart.legend(directions if known else [("all-flips", "label changed")], x=0)
    sure = rows[-1]
    return Plot(
        title="Flips by confidence",
        svg=chart.svg(
            name,
            "Share of changed labels by the float model's confidence",
            f"Where the float model was surest, the label of {count(sure['flips'].number)} of "
            f"{plural(sure['faces'].number, 'face')} changed.",
        ),
        reading=(
            "Rounding moves labels that hung in the balance, so bars should fall to nothing on the right. "
            "The line is the interval, cut at the edge of the plot; with few faces in a band it is wide, "
            "and the bar says little."
        ),
        columns=("band", "faces", "flips", "share", "interval", *(title for _, title in KINDS)),
        rows=[
            (
                f"{_bound(row['from'])}–{_bound(row['to'])} %",
                count(row["faces"].number),
                count(row["flips"].number),
                percent(row["share"].number),
                interval_text(row["interval"]),
                *(count(row[kind].number) for kind, _ in KINDS),
            )
            for row in rows
        ],
    )


def _bound(value: Value) -> str:
    return count(None if value.number is None else value.number * 100)


def _stack(chart: Chart, index: int, row: Value, share: float) -> None:
    """Draw one bar, from the parts that its directions are; in one piece where these were not measured."""
    parts = [(kind.replace("_", "-"), row[kind].number) for kind, _ in KINDS]
    total = sum(number or 0.0 for _, number in parts)
    if not total:
        parts, total = [("all-flips", 1.0)], 1.0
    left, width, base = chart.x(index + 0.18), chart.x(0.64) - chart.x(0), 0.0
    for kind, number in parts:
        height = share * (number or 0.0) / total
        if height > 0:
            top = chart.y(base + height)
            chart.box((left, top), (width, chart.y(base) - top), kind)
            base += height
