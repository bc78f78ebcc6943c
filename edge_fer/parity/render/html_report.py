"""Lays out one report as HTML: verdict, gates, plots, and what it was measured with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from edge_fer.parity.documents import name_of
from edge_fer.parity.render import plot_decisions, plot_probabilities
from edge_fer.parity.render.elements import Section, fold, icon, pill, region, section, style, table
from edge_fer.parity.render.html_details import (
    abstention,
    attribution,
    balancing,
    facts,
    ladder,
    slices,
    worst_faces,
)
from edge_fer.parity.render.markup import Markup, join, tag
from edge_fer.parity.render.plot import Plot
from edge_fer.parity.render.plot_inline import margin
from edge_fer.parity.render.reading import MISSING, Value
from edge_fer.parity.render.summary import (
    GateRow,
    compared,
    explained,
    gate_rows,
    headline,
    key_figures,
    verdict,
)

Draw = Callable[[Value, str], Plot | None]

GATE_COLUMNS = ("gate", "measured", "interval", "threshold", "margin", "verdict", "reason")
GATE_NOTE = (
    "The shaded field is what a gate allows, its dashed edge the threshold; the diamond is the measured "
    "figure, the line its two one-sided bounds. A gate passes when the whole line lies in the field, "
    "fails when it lies outside, and is undecided when it reaches across the edge: then there are too few "
    "faces to tell."
)
FACTS = {
    "Environment": "environment",
    "Thresholds": "thresholds",
    "Bundle": "bundle",
    "Reference": "reference",
}
PLOTS: Mapping[str, tuple[str, Sequence[tuple[str, str, Draw]]]] = {
    "decisions": (
        "Decisions",
        (
            ("flip-matrix", "which labels flipped", plot_decisions.flip_matrix),
            ("flips-by-confidence", "flips by confidence", plot_decisions.flips_by_confidence),
            ("recall", "recall per class", plot_decisions.recall_by_class),
        ),
    ),
    "probabilities": (
        "Probabilities and calibration",
        (
            ("confidence", "confidence, face by face", plot_decisions.confidence_scatter),
            ("calibration", "reliability diagram", plot_probabilities.reliability_diagram),
            ("divergence", "how far probabilities moved", plot_probabilities.divergence_histogram),
        ),
    ),
    "head": (
        "Reliability head and abstention",
        (
            ("risk-coverage", "risk against coverage", plot_probabilities.risk_coverage),
            ("reliability", "reliability of both models", plot_probabilities.reliability_histogram),
        ),
    ),
    "speed": ("Time", (("latency", "time per face", plot_probabilities.latency),)),
}


def sections(report: Value, name: str, level: int, pictures: Mapping[str, bytes]) -> list[Section]:
    """Lay out the parts of one report; a part without data is left out.

    Args:
        report: parsed JSON.
        name: what every id of this report starts with.
        level: of the headings: 2 below the page's title, 3 below the report's.
        pictures: hash of a face -> PNG.
    """
    parts = [
        _gates(report, name, level),
        *(_plot_section(report, name, key, level) for key in PLOTS),
        attribution(report, name, level),
        worst_faces(report, name, level, pictures),
        slices(report, name, level),
        ladder(report, name, level),
        _everything(report, name, level),
    ]
    return [part for part in parts if part is not None]


def banner(report: Value, level: int, name: str) -> Markup:
    """Return the verdict in large letters with the sentences that explain it, and the key figures."""
    word = verdict(report)
    figures = [
        tag("div", tag("dt", each.name), _measured(each.value), tag("dd", each.note, class_="against"))
        for each in key_figures(report)
    ]
    return join(
        (
            tag(
                "div",
                icon(word),
                tag(f"h{level}", headline(report), id=f"{name}-verdict"),
                tag("p", compared(report)),
                tag("p", explained(report), class_="why"),
                class_=f"verdict {word}",
            ),
            tag("dl", *figures, class_="figures"),
        )
    )


def _measured(value: str) -> Markup:
    return tag("dd", value, class_="missing" if value == MISSING else None)


def _gates(report: Value, name: str, level: int) -> Section:
    rows = [_gate(row, f"{name}-margin{index}") for index, row in enumerate(gate_rows(report["gates"]))]
    head = tag(
        "tr", *(tag("th", column, scope="col", role="columnheader") for column in GATE_COLUMNS), role="row"
    )
    # the roles say again what the elements mean, as a phone's layout takes the table's own away
    label = f"Gates of {name_of(report.object)}"
    whole = tag(
        "table",
        tag("caption", label, class_="unseen"),
        tag("thead", head, role="rowgroup"),
        tag("tbody", *rows, role="rowgroup"),
        class_="gates",
        role="table",
    )
    return section(level, f"{name}-gates", "Gates", region(label, whole), tag("p", GATE_NOTE, class_="muted"))


def _gate(row: GateRow, name: str) -> Markup:
    drawn = margin(row, name)
    cells = [
        tag("th", row.name, scope="row", role="rowheader"),
        _cell(row.value, "wide", "measured"),
        _cell(row.interval, "wide", "interval"),
        _cell(row.threshold, "wide", "threshold"),
        _cell(join((drawn or "", tag("span", row.margin, class_="margin-text"))), "drawn"),
        _cell(pill(row.verdict), "said"),
        _cell(row.reason, "reason"),
    ]
    return tag("tr", *cells, role="row", class_=f"is-{style(row.verdict)}")


def _cell(content: str, kind: str, name: str | None = None) -> Markup:
    return tag("td", content, class_=kind, role="cell", data_name=name)


def _plot_section(report: Value, name: str, key: str, level: int) -> Section | None:
    heading, draws = PLOTS[key]
    drawn = [(slug, plain, draw(report, f"{name}-{slug}")) for slug, plain, draw in draws]
    figures = [
        _figure(plot, f"{name}-{slug}-figure", level + 1) for slug, _, plot in drawn if plot is not None
    ]
    table = None
    if key == "head":
        numbers, table = abstention(report, level + 1), balancing(report)
        figures += [] if numbers is None else [numbers]
    if not figures and table is None:
        return None
    missing = [plain for _, plain, plot in drawn if plot is None]
    note = tag("p", f"Not measured here: {', '.join(missing)}.", class_="muted") if missing else Markup()
    style = "plots" if len(figures) > 1 else "plots alone"
    return section(level, f"{name}-{key}", heading, tag("div", *figures, class_=style), table or "", note)


def _figure(plot: Plot, name: str, level: int) -> Markup:
    return tag(
        "figure",
        tag(f"h{level}", plot.title),
        plot.svg,
        tag("figcaption", plot.reading),
        fold("Numbers", table(f"Numbers: {plot.title}", plot.columns, plot.rows)),
        id=name,
    )


def _everything(report: Value, name: str, level: int) -> Section:
    panels = [
        tag("div", tag(f"h{level + 1}", heading), facts(heading, report[key]))
        for heading, key in FACTS.items()
        if report[key]
    ]
    figures = fold("All figures", facts("All figures", report["figures"]))
    return section(
        level,
        f"{name}-everything",
        "What it was measured with",
        tag("div", *panels, class_="panels"),
        figures,
    )
