"""Lays out several reports in one table and, gate by gate, on common axes."""

from __future__ import annotations

from collections.abc import Sequence

from edge_fer.parity.render.elements import Section, icon, pill, section, style, table
from edge_fer.parity.render.markup import Markup, join, tag
from edge_fer.parity.render.plot_inline import side_by_side
from edge_fer.parity.render.reading import DASH, Value
from edge_fer.parity.render.summary import (
    MATRIX_FIGURES,
    VERDICTS,
    GateRow,
    gate_rows,
    headline,
    matrix_figures,
    title,
    verdict,
)


def matrix(reports: Sequence[Value]) -> Section:
    """Return one row per report: verdict, gates, key figures; and the gates that have intervals, drawn."""
    gates = [{row.name: row for row in gate_rows(report["gates"])} for report in reports]
    names = list(dict.fromkeys(name for each in gates for name in each))
    rows = [
        _row(index, report, each, names)
        for index, (report, each) in enumerate(zip(reports, gates, strict=True), 1)
    ]
    columns = ("bundle", "verdict", *(tag("span", name, class_="upright") for name in names), *MATRIX_FIGURES)
    key = join([tag("span", pill(word), " ") for word in VERDICTS])
    return section(
        2,
        "matrix",
        "All bundles",
        table("Verdicts and key figures of all bundles", columns, rows, "matrix"),
        tag("p", key, class_="icons"),
        section(3, "side-by-side", "Gates side by side", _drawn(reports, gates, names)).html,
    )


def short_title(index: int, report: Value) -> str:
    """Name a report where there is little room: 1 openvino int8."""
    return f"{index} {report['bundle']['target'].text} {report['bundle']['precision'].text}"


def _row(index: int, report: Value, gates: dict[str, GateRow], names: Sequence[str]) -> list[str]:
    where = tag("span", report["environment"]["cpu_class"].text, class_="margin-text")
    link = tag("a", f"{index} {title(report)}", href=f"#r{index}")
    cells = [_verdict(gates[name]) if name in gates else DASH for name in names]
    return [
        join((link, where)),
        pill(verdict(report), headline(report).lower()),
        *cells,
        *matrix_figures(report),
    ]


def _verdict(gate: GateRow) -> Markup:
    """Return a gate's verdict as an icon, whose shape tells it; the word is for those who hear the page."""
    word = tag("span", gate.verdict, class_="unseen")
    return tag("span", icon(gate.verdict), word, class_=f"only {style(gate.verdict)}")


def _drawn(reports: Sequence[Value], gates: Sequence[dict[str, GateRow]], names: Sequence[str]) -> Markup:
    """Draw each gate that has an interval in some report, the reports under one another."""
    figures = []
    for number, name in enumerate(names):
        rows = [
            (short_title(index, report), each[name])
            for index, (report, each) in enumerate(zip(reports, gates, strict=True), 1)
            if name in each
        ]
        sampled = any(row.bounds is not None and row.bounds[0] != row.bounds[1] for _, row in rows)
        drawn = side_by_side(rows, f"all-{number}") if sampled else None
        if drawn is not None:
            figures.append(tag("figure", tag("h4", name), drawn))
    return tag("div", *figures, class_="plots")
