"""Renders parity reports as Markdown for pull requests: verdict, gates, key figures, flips, slices."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from edge_fer.parity.documents import joint_verdict, name_of
from edge_fer.parity.render.markup import clean
from edge_fer.parity.render.plot import interval_text
from edge_fer.parity.render.reading import DASH, Value, count, percent
from edge_fer.parity.render.summary import (
    MATRIX_FIGURES,
    SLICE_COLUMNS,
    compared,
    explained,
    gate_rows,
    headline,
    key_figures,
    matrix_figures,
    numbered,
    slice_rows,
    tally,
    verdict,
)

SIGNS = {"passed": "✔", "failed": "✘", "undecided": "?", "not run": DASH, "size only": "▽"}

# As character references these mean nothing to Markdown, HTML, mentions, links or formulas.
_SPECIAL = {ord(sign): f"&#{ord(sign)};" for sign in "\\`*_[]|~<>&@#$!"}

_LINK = re.compile(r":(?=//)|(?<=www)\.", re.IGNORECASE)


def render_markdown(reports: Sequence[Mapping[str, object]]) -> str:
    """Render reports as GitHub's Markdown; the same reports give the same text.

    Args:
        reports: parsed and validated parity.json objects, at least one.
    """
    values = [Value(report) for report in reports]
    if len(values) == 1:
        blocks = [f"## Parity of {plain(name_of(reports[0]))}: {headline(values[0])}", *_report(values[0])]
    else:
        blocks = [
            f"## Parity of {len(values)} bundles: {joint_verdict(reports).upper()}",
            plain(tally(values)),
            _matrix(values),
        ]
        for index, value in enumerate(values, 1):
            blocks += _fold(f"{plain(numbered(index, value))}: {headline(value)}", _report(value))
    return "\n\n".join(blocks) + "\n"


def plain(text: str) -> str:
    """Return text that Markdown shows as it is, on one line."""
    return (
        clean(" ".join(text.split()))
        .translate(_SPECIAL)
        .replace("://", "&#58;//")
        .replace("www.", "www&#46;")
    )


def _report(report: Value) -> list[str]:
    gates = [
        (row.name, row.value, row.interval, row.threshold, f"{SIGNS[row.verdict]} {row.verdict}", row.reason)
        for row in gate_rows(report["gates"])
    ]
    figures = [(figure.name, figure.value, figure.note) for figure in key_figures(report)]
    blocks = [
        plain(compared(report)),
        f"**{plain(explained(report))}**",
        _table(("gate", "measured", "interval", "threshold", "verdict", "reason"), gates),
        _table(("figure", "bundle", "against"), figures),
    ]
    flips = [_flips(row) for row in report["details"]["flips_by_class"].items]
    if flips:
        columns = ("float label", "faces", "flips", "share", "interval", "lost", "gained", "wrong to wrong")
        blocks += _fold("Changed labels by class", [_table(columns, flips)])
    for (column, rows), part in zip(slice_rows(report), report["slices"].items, strict=True):
        table = _table((column, *SLICE_COLUMNS), rows)
        blocks += _fold(f"Slices by {plain(column)}", [table, plain(part["note"].text)])
    return blocks


def _flips(row: Value) -> tuple[str, ...]:
    return (
        row["label"].text,
        count(row["faces"].number),
        count(row["flips"].number),
        percent(row["share"].number),
        interval_text(row["interval"]),
        *(count(row[kind].number) for kind in ("to_wrong", "to_right", "between_wrong")),
    )


def _matrix(reports: Sequence[Value]) -> str:
    names = list(dict.fromkeys(row.name for report in reports for row in gate_rows(report["gates"])))
    rows = []
    for index, report in enumerate(reports, 1):
        signs = {row.name: SIGNS[row.verdict] for row in gate_rows(report["gates"])}
        word = f"{SIGNS[verdict(report)]} {headline(report).lower()}"
        rows.append(
            (numbered(index, report), word, *(signs.get(name, "") for name in names), *matrix_figures(report))
        )
    key = ", ".join(f"{sign} {word}" for word, sign in SIGNS.items())
    return _table(("bundle", "verdict", *names, *MATRIX_FIGURES), rows) + f"\n\n{key}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(plain(cell) for cell in line)} |" for line in lines)


def _fold(summary: str, blocks: Sequence[str]) -> list[str]:
    return [f"<details><summary>{summary}</summary>", *blocks, "</details>"]
