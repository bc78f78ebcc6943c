"""Lays out several reports in one table and, gate by gate, on common axes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from edge_fer.parity.documents import name_of, place_of
from edge_fer.parity.render.elements import Section, cards, icon, pill, section, style
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
    processor,
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
    columns = [
        *((name, name) for name in ("bundle", "verdict")),
        *((name, tag("span", name, class_="upright")) for name in names),
        *((name, name) for name in MATRIX_FIGURES),
    ]
    key = join([tag("span", pill(word), " ") for word in VERDICTS])
    return section(
        2,
        "matrix",
        "All bundles",
        cards("Verdicts and key figures of all bundles", columns, rows, "matrix"),
        tag("p", key, class_="icons"),
        section(3, "side-by-side", "Gates side by side", _drawn(reports, gates, names)).html,
    )


def short_titles(reports: Sequence[Value]) -> list[tuple[str, ...]]:
    """Name each report in lines where there is little room: 1 openvino int8.

    Where a target and precision come again, the lines below tell in what these reports differ: the model, the
    class of CPUs.
    """
    bases = [f"{one['bundle']['target'].text} {one['bundle']['precision'].text}" for one in reports]
    repeated = {base for base, number in Counter(bases).items() if number > 1}
    places = [(one["bundle"]["model"].text, place_of(one.object)) for one in reports]
    titles = []
    for index, (base, place) in enumerate(zip(bases, places, strict=True), 1):
        alike = [other for name, other in zip(bases, places, strict=True) if name == base]
        more = [
            text for text, kind in zip(place, zip(*alike, strict=True), strict=True) if len(set(kind)) > 1
        ]
        titles.append((f"{index} {base}", *(more if base in repeated else ())))
    return titles


def _row(index: int, report: Value, gates: dict[str, GateRow], names: Sequence[str]) -> list[str]:
    where = tag("span", processor(report), class_="margin-text")
    link = tag("a", f"{index} {name_of(report.object)}", href=f"#r{index}")
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
    figures, titles = [], short_titles(reports)
    for number, name in enumerate(names):
        rows = [(title, each[name]) for title, each in zip(titles, gates, strict=True) if name in each]
        sampled = any(row.bounds is not None and row.bounds[0] != row.bounds[1] for _, row in rows)
        drawn = side_by_side(rows, f"all-{number}") if sampled else None
        if drawn is not None:
            figures.append(tag("figure", tag("h4", name), drawn))
    return tag("div", *figures, class_="plots")
