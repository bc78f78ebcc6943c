"""Renders parity reports as one HTML file that needs nothing else: no script, no request, no date."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files

from edge_fer.parity.documents import joint_verdict, name_of
from edge_fer.parity.render.elements import Section, icon, icon_sheet, section
from edge_fer.parity.render.html_matrix import matrix
from edge_fer.parity.render.html_report import banner, sections
from edge_fer.parity.render.markup import Markup, join, tag
from edge_fer.parity.render.reading import Value, plural
from edge_fer.parity.render.summary import headline, numbered, tally

FOOTER = (
    "Made by edge-fer from parity.json, which is the authority: every number here is in it. This page "
    "holds no script and asks for nothing from a network."
)


def render_html(reports: Sequence[Mapping[str, object]], pictures: Mapping[str, bytes] | None = None) -> str:
    """Render reports as one self-contained page; the same reports give the same bytes.

    Args:
        reports: parsed and validated parity.json objects, at least one.
        pictures: hash of a face -> PNG, shown beside the worst faces; None for none.
    """
    values, pictures = [Value(report) for report in reports], pictures or {}
    body = _single(values[0], pictures) if len(values) == 1 else _several(values, pictures)
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    words = headline(values[0]) if len(values) == 1 else joint_verdict(reports).upper()
    what = name_of(reports[0]) if len(values) == 1 else plural(len(values), "bundle")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        # the browser itself now refuses scripts and requests, whatever a report may hold
        tag(
            "meta",
            http_equiv="Content-Security-Policy",
            content=f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:",
        ),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{words}: {what} - edge-fer parity"),
        tag("link", rel="icon", href="data:,"),
        tag("style", style),
    )
    skip = tag("a", "Skip to the gates", href="#r1-gates" if len(values) == 1 else "#matrix", class_="skip")
    page = tag("html", head, tag("body", skip, icon_sheet(), body), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


@cache
def _style() -> Markup:
    return Markup(files("edge_fer.parity.render").joinpath("page.css").read_text(encoding="utf-8"))


def _single(report: Value, pictures: Mapping[str, bytes]) -> Markup:
    brand = tag("p", f"edge-fer parity report: {name_of(report.object)}", class_="brand")
    parts = sections(report, "r1", 2, pictures)
    header = tag("header", brand, banner(report, 1, "r1"))
    return _page(header, _links(parts, "Parts of the report"), join(part.html for part in parts))


def _several(reports: Sequence[Value], pictures: Mapping[str, bytes]) -> Markup:
    word = joint_verdict(report.object for report in reports)
    big = tag("div", icon(word), tag("h1", word.upper()), tag("p", tally(reports)), class_=f"verdict {word}")
    header = tag("header", tag("p", "edge-fer parity report", class_="brand"), big)
    parts = [matrix(reports), *(_report(index, report, pictures) for index, report in enumerate(reports, 1))]
    return _page(header, _links(parts, "Reports"), join(part.html for part in parts))


def _report(index: int, report: Value, pictures: Mapping[str, bytes]) -> Section:
    parts = sections(report, f"r{index}", 3, pictures)
    links = _links(parts, f"Parts of report {index}")
    content = join((banner(report, 3, f"r{index}"), links, *(part.html for part in parts)))
    whole = section(2, f"r{index}", numbered(index, report), content)
    return replace(whole, html=tag("div", whole.html, class_="report"))


def _page(header: Markup, links: Markup, content: Markup) -> Markup:
    return join((header, links, tag("main", content, id="main"), tag("footer", tag("p", FOOTER))))


def _links(parts: Sequence[Section], label: str) -> Markup:
    items = [tag("li", tag("a", part.title, href=f"#{part.name}")) for part in parts]
    return tag("nav", tag("ul", *items), aria_label=label)
