"""The parts a page is made of: tables, regions that scroll, folds, verdict pills. Knows no report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_fer.parity.render.markup import Markup, tag

ICONS = {
    "passed": "M10 1a9 9 0 1 0 0 18a9 9 0 0 0 0-18zM8.6 14.4L4.6 10.4L6 9L8.6 11.6L14 6.2L15.4 7.6z",
    "failed": (
        "M6.3 1h7.4L19 6.3v7.4L13.7 19H6.3L1 13.7V6.3zM6.9 5.5L5.5 6.9L8.6 10L5.5 13.1L6.9 14.5L10 "
        "11.4L13.1 14.5L14.5 13.1L11.4 10L14.5 6.9L13.1 5.5L10 8.6z"
    ),
    "undecided": (
        "M10 .8L19.6 19H.4zM9 15v2h2v-2zM6.9 10h2c0-.7.4-1.1 1.1-1.1s1.1.4 1.1 1"
        "c0 1.1-2.1 1.4-2.1 3.9h2c0-1.7 2.1-2.1 2.1-4.1C13.1 8.1 11.8 7 10 7S6.9 8.2 6.9 10z"
    ),
    "not-run": "M10 1a9 9 0 1 0 0 18a9 9 0 0 0 0-18zm0 2a7 7 0 1 1 0 14a7 7 0 0 1 0-14zM6 9v2h8V9z",
    "size-only": "M1 1h18v18H1zM3 3v14h14V3zM9 5h2v5h3l-4 5l-4-5h3z",
}


def icon_sheet() -> Markup:
    """Return the drawings that every icon of the page refers to, and the hatching of bars."""
    symbols = [
        tag(
            "symbol",
            tag("path", d=path, fill="currentColor", fill_rule="evenodd"),
            id=f"v-{name}",
            viewBox="0 0 20 20",
        )
        for name, path in ICONS.items()
    ]
    hatching = tag(
        "pattern",
        tag("rect", width=6, height=6, class_="hatch-ground"),
        tag("path", d="M-1 1l2-2M0 6l6-6M5 7l2-2", class_="hatch-line"),
        id="hatch",
        width=6,
        height=6,
        patternUnits="userSpaceOnUse",
    )
    return tag("svg", tag("defs", *symbols, hatching), class_="sheet", aria_hidden="true", width=0, height=0)


def style(verdict: str) -> str:
    """Return the class of a verdict in the style sheet."""
    return verdict.replace(" ", "-")


def icon(verdict: str) -> Markup:
    """Return the icon of a verdict; the word stands beside it."""
    return tag(
        "svg", tag("use", href=f"#v-{style(verdict)}"), class_="icon", aria_hidden="true", viewBox="0 0 20 20"
    )


def pill(verdict: str, text: str | None = None) -> Markup:
    """Return a verdict as icon and word."""
    return tag("span", icon(verdict), text or verdict, class_=f"pill {style(verdict)}")


def region(label: str, content: str) -> Markup:
    """Return what may be wider than the page in a part of its own that scrolls, by keyboard too."""
    return tag("div", content, class_="scroll", role="region", tabindex="0", aria_label=label)


def table(
    label: str, columns: Sequence[str], rows: Sequence[Sequence[str]], style: str = "numbers"
) -> Markup:
    """Return a table whose first column names its rows, in a region that scrolls."""
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in columns)))
    body = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    caption = tag("caption", label, class_="unseen")
    return region(label, tag("table", caption, head, tag("tbody", *body), class_=style))


def cards(
    label: str, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], style: str
) -> Markup:
    """Return a table whose rows become cards where it is too narrow for them.

    Args:
        label: of the table.
        columns: the name of each, and what its heading shows of it.
        rows: of cells; the first names its row.
        style: class.
    """
    head = tag(
        "tr", *(tag("th", shown, scope="col", role="columnheader") for _, shown in columns), role="row"
    )
    names = [name for name, _ in columns[1:]]
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row", role="rowheader"),
            *(
                tag("td", cell, role="cell", data_name=name)
                for name, cell in zip(names, row[1:], strict=True)
            ),
            role="row",
        )
        for row in rows
    ]
    # the roles say again what the elements mean, as the cards' layout takes the table's own away
    whole = tag(
        "table",
        tag("caption", label, class_="unseen"),
        tag("thead", head, role="rowgroup"),
        tag("tbody", *body, role="rowgroup"),
        class_=f"{style} cards",
        role="table",
    )
    return region(label, whole)


def fold(summary: str, *content: str) -> Markup:
    """Return content that opens on demand, and always in print."""
    return tag("details", tag("summary", summary), *content)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page under its heading, which links can name."""

    name: str
    title: str
    html: Markup


def section(level: int, name: str, title: str, *content: str) -> Section:
    """Return a part of the page under a heading of this level."""
    heading = tag(f"h{level}", title, id=f"{name}-h")
    return Section(name, title, tag("section", heading, *content, id=name, aria_labelledby=f"{name}-h"))
