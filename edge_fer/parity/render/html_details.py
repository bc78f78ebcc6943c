"""Lays out the parts of a report that are tables and cards: head, attribution, worst faces, slices, facts."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from itertools import islice

from edge_fer.parity.render.elements import Section, cards, fold, pill, section, table
from edge_fer.parity.render.markup import Markup, join, tag
from edge_fer.parity.render.plot import interval_text
from edge_fer.parity.render.plot_inline import paired_bars
from edge_fer.parity.render.reading import DASH, DEEPEST, Value, count, decimal, percent, plural, small
from edge_fer.parity.render.summary import GateRow, gate_rows
from edge_fer.parity.render.svg import round_up

CONTROLS = (
    "Broken counts control faces, as near to another label as the changed ones but with theirs kept, that "
    "lose it when the block is undone: a block whose restored is not clearly above its broken is noise, and "
    "neither is the net change on all faces."
)
MOST_FACTS = 1000
"""Rows of a list of facts; what is beyond is counted."""
SHOWN_FACES = 8
"""Faces that stand open on the page; the others are behind a fold."""


def abstention(report: Value, level: int) -> Markup | None:
    """Tabulate what abstaining does to both models; None when it was not measured."""
    kept = report["details"]["abstention"]
    if not kept:
        return None
    rows = [
        (title, *(_with_interval(percent(kept[each].number), kept[f"{each}_interval"]) for each in keys))
        for title, keys in (
            ("faces answered", ("reference_coverage", "coverage")),
            ("error among them", ("reference_risk", "risk")),
        )
    ]
    areas = (decimal(kept[f"{prefix}aurc"].number) for prefix in ("reference_", ""))
    only = (count(kept[key].number) for key in ("dropped_by_bundle", "kept_by_bundle"))
    rows += [("area under the curve", *areas), ("answered by this one only", *only)]
    sentence = (
        f"Below a reliability of {decimal(kept['threshold'].number, 3)} ({kept['origin'].text}) no answer "
        f"is given. Both models answer {plural(kept['kept_both'].number, 'face')}."
    )
    return tag(
        "figure",
        tag(f"h{level}", "Abstention in numbers"),
        table("Abstention", ("", "float", "bundle"), rows, "numbers snug"),
        tag("figcaption", sentence),
    )


def _with_interval(text: str, interval: Value) -> Markup:
    """Write a figure with its interval below."""
    bounds = tag("span", interval_text(interval), class_="margin-text") if interval else Markup()
    return join((text, bounds))


def balancing(report: Value) -> Markup | None:
    """Tabulate what reliability balancing did in both models; None when it was not measured."""
    head = report["details"]["head"]
    if not head:
        return None
    relabelled = [
        f"{count(head[f'{prefix}relabelled'].number)} ({percent(head[f'{prefix}relabelled_share'].number)})"
        for prefix in ("reference_", "")
    ]
    both = (
        f"{count(head['relabelled_both'].number)}, {count(head['relabelled_same'].number)} to the same label"
    )
    moved = (small(head[f"{prefix}correction_js_mean"].number, " nat") for prefix in ("reference_", ""))
    mean, p95, largest = (small(head[f"reliability_shift_{key}"].number) for key in ("mean", "p95", "max"))
    before = (small(head[f"primary_js_{key}"].number) for key in ("mean", "p95"))
    rows = [
        (
            "labels that balancing changed",
            relabelled[0],
            _with_interval(relabelled[1], head["relabelled_interval"]),
        ),
        ("how far it moves a face, mean", *moved),
        ("labels that it changed in both models", DASH, both),
        (
            "faces on which both agree whether and to what",
            DASH,
            _with_interval(percent(head["agreement"].number), head["agreement_interval"]),
        ),
        ("labels that flipped before balancing", DASH, count(head["primary_flips"].number)),
        ("divergence before balancing, mean and p95", DASH, f"{' and '.join(before)} nat"),
        ("largest difference before balancing", DASH, small(head["primary_max_abs_diff"].number)),
        ("reliability moved by, mean, p95 and largest", DASH, f"{mean}, {p95} and {largest}"),
    ]
    return table("Reliability balancing", ("reliability balancing", "float", "bundle"), rows, "loose")


def attribution(report: Value, name: str, level: int) -> Section | None:
    """Tabulate which block's quantiser, when undone, restores how many flipped labels."""
    found = report["details"]["attribution"]
    if not found:
        return None
    flips, controls = found["flips"].number, found["controls"].number
    columns = ["block undone", "labels restored", "share", ""]
    columns += [] if controls is None else ["labels broken", "divergence less"]
    rows = [_block(row, flips, controls) for row in found["blocks"].items]
    faces = [
        (row["face"].text, f"{row['from'].text} → {row['to'].text}", row["restored_by"].text)
        for row in found["faces"].items
    ]
    sentence = (
        "Which block's quantiser, when undone, restores the label. "
        f"Of {plural(flips, 'changed label')}, {count(found['unrestored'].number)} came "
        "back by no single block. A label may be restored by more than one block, so the shares need not "
        "add up to 100%."
    )
    skipped = fold("Blocks left out", facts("Blocks left out", found["skipped"])) if found["skipped"] else ""
    return section(
        level,
        f"{name}-attribution",
        "Attribution",
        tag("p", sentence),
        tag("p", CONTROLS, class_="muted") if controls is not None else "",
        table("Attribution by block", columns, rows),
        skipped,
        fold("Face by face", table("Attribution by face", ("face", "change", "restored by"), faces)),
    )


def _block(row: Value, flips: float | None, controls: float | None) -> tuple[str, ...]:
    """Return one row of the blocks; what was broken only where there were controls to break."""
    cells: tuple[str, ...] = (
        row["block"].text,
        f"{count(row['restored'].number)} of {count(flips)}",
        percent(row["share"].number, 0),
        _share(row["share"]),
    )
    if controls is None:
        return cells
    broken = f"{count(row['broken'].number)} of {count(controls)}"
    return *cells, broken, small(row["js_drop"].number, " nat")


def _share(value: Value) -> Markup:
    """Draw a share as a bar; the number stands beside it."""
    share = min(max(value.number or 0.0, 0.0), 1.0)
    bars = (
        tag("rect", width=100, height=10, class_="none"),
        tag("rect", width=100 * share, height=10, class_="bar bundle"),
    )
    return tag(
        "svg", *bars, class_="share", viewBox="0 0 100 10", preserveAspectRatio="none", aria_hidden="true"
    )


def worst_faces(report: Value, name: str, level: int, pictures: Mapping[str, bytes]) -> Section | None:
    """Show the faces that changed most, with the distributions of both models."""
    details = report["details"]
    labels = [label.text for label in details["labels"].items]
    faces = details["worst"].items
    kinds = ("reference", "bundle", "reference_primary", "primary")
    highest = [p for face in faces for kind in kinds for p in face[kind].numbers]
    top = round_up(max(highest, default=1.0))  # one scale, so that faces can be compared
    cards = [
        _face(face, pictures, paired_bars(face, labels, top, f"{name}-face{index}"))
        for index, face in enumerate(faces)
    ]
    if not cards:
        return None
    key = tag(
        "p",
        "Faces whose label changed first, then by divergence. In each pair of bars the upper, outlined one "
        "is the float checkpoint, the lower, filled one the bundle; the thin upright line is the "
        "probability before reliability balancing. These are the worst of all faces, not typical ones.",
        class_="muted",
    )
    rest = cards[SHOWN_FACES:]
    more = fold(f"{plural(len(rest), 'more face')}", tag("ul", *rest, class_="faces")) if rest else Markup()
    shown = tag("ul", *cards[:SHOWN_FACES], class_="faces")
    return section(level, f"{name}-worst", "Worst faces", key, shown, more)


def _face(face: Value, pictures: Mapping[str, bytes], bars: Markup | None) -> Markup:
    found = pictures.get(face["hash"].text)
    number, change = face["face"].text, f"{face['from'].text} → {face['to'].text}"
    if found:
        data = f"data:image/png;base64,{base64.b64encode(found).decode('ascii')}"
        picture = tag("img", src=data, alt=f"face {number}", width=72, height=72)
    else:
        picture = tag("div", "no picture", class_="nobody")
    same = face["from"].text == face["to"].text
    text = tag(
        "div",
        tag("strong", f"{face['to'].text}, unchanged" if same else change),
        tag("span", f"true label: {face['label'].text if face['label'] else 'not known'}"),
        tag("span", f"{small(face['js'].number)} nat apart"),
        tag("span", f"face {number}"),
    )
    return tag("li", tag("div", picture, text, class_="face"), bars or Markup())


def slices(report: Value, name: str, level: int) -> Section | None:
    """Tabulate the gates of every value of every column."""
    found = report["slices"].items
    if not found:
        return None
    warning = (
        "Every part of the faces was judged on its own, and some gates of many fail by chance: take a single "
        "failure as a reason to look, not as proof, and an undecided one as too few faces. The verdict above "
        "does not count them."
    )
    parts = []
    for index, each in enumerate(found):
        column = each["column"].text
        note = tag("p", each["note"].text, class_="muted") if each["note"] else ""
        parts.append(
            section(level + 1, f"{name}-slice{index}", f"By {column}", _slice_table(each), note).html
        )
    return section(level, f"{name}-slices", "Slices", tag("p", warning), *parts)


def _slice_table(each: Value) -> Markup:
    values = [(value, gate_rows(value["gates"])) for value in each["values"].items]
    names = list(dict.fromkeys(row.name for _, rows in values for row in rows))
    body = []
    for value, rows in values:
        by_name = {row.name: row for row in rows}
        cells = [_slice_gate(by_name[gate]) if gate in by_name else DASH for gate in names]
        both = (percent(value["figures"][key].number) for key in ("reference_accuracy", "accuracy"))
        body.append((value["value"].text, count(value["faces"].number), *both, *cells))
    columns = (each["column"].text, "faces", "float accuracy", "bundle accuracy", *names)
    named = [(column, column) for column in columns]
    return cards(f"Slices by {each['column'].text}", named, body, "numbers slices")


def _slice_gate(row: GateRow) -> Markup:
    """Return the verdict's icon with the figure, or with its word where there is no figure."""
    if row.value == DASH:
        return pill(row.verdict)
    word = tag("span", f" {row.verdict}", class_="unseen")
    bounds = Markup() if row.interval == DASH else tag("span", row.interval, class_="margin-text")
    return join((pill(row.verdict, row.value), word, bounds))


def ladder(report: Value, name: str, level: int) -> Section | None:
    """Tabulate the rungs that export tried before it chose this precision."""
    rungs = report["ladder"]["rungs"].items
    if not rungs:
        return None
    columns = [key for key, _ in rungs[0].pairs]
    rows = [tuple(rung[column].text for column in columns) for rung in rungs]
    return section(level, f"{name}-ladder", "Precisions tried", table("Precisions tried", columns, rows))


def facts(title: str, value: Value) -> Markup:
    """List every value of an object, nested ones by their path."""
    rows = [(key, item.text) for key, item in islice(_flat(value), MOST_FACTS)]
    if len(rows) == MOST_FACTS:
        rows.append(("…", "there may be more in parity.json"))
    return table(title, ("name", "value"), rows, "facts")


def _flat(value: Value, path: str = "", levels: int = DEEPEST) -> Iterator[tuple[str, Value]]:
    for key, item in value.pairs:
        name = f"{path} {key}".strip()
        if levels and item.pairs:
            yield from _flat(item, name, levels - 1)
        else:
            yield name, item
