"""Says in words what a report found: verdict, gates, key figures. Page and Markdown both take theirs here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from edge_fer.parity.documents import name_of, place_of
from edge_fer.parity.gates import Gate, Verdict
from edge_fer.parity.render.reading import (
    DASH,
    MISSING,
    Value,
    count,
    decimal,
    difference,
    minus,
    percent,
    plural,
    points,
    small,
)
from edge_fer.parity.table import table_rows

MATRIX_FIGURES = ("accuracy", "labels changed", "mean JS, nat", "change of ECE", "p50, ms")
SLICE_COLUMNS = ("faces", "accuracy", "float accuracy", "labels changed", "gates")
VERDICTS = ("passed", "failed", "undecided", "not run", "size only")


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRow:
    """One gate, written as the terminal's table writes it, with its numbers.

    Attributes:
        name: what was compared.
        value: the measured figure, a dash when there is none.
        interval: its bounds, a dash when there are none.
        threshold: with its sign, a dash when there is none.
        verdict: passed, failed, undecided, not run or size only.
        reason: the sentence behind it.
        number: the measured figure.
        bounds: of its interval; the figure twice when it is not sampled.
        limit: the threshold.
        direction: what the figure has to be of the threshold: at least, at most, within.
    """

    name: str
    value: str
    interval: str
    threshold: str
    verdict: str
    reason: str
    number: float | None
    bounds: tuple[float, float] | None
    limit: float | None
    direction: str

    @property
    def used(self) -> float | None:
        """How much of what the threshold allows the deciding bound uses; above 1 is beyond it."""
        if self.bounds is None or self.limit is None or self.limit == 0:
            return None
        lower, upper = self.bounds
        if self.direction == "within":
            return max(abs(lower), abs(upper)) / abs(self.limit)
        if self.direction == "at most":
            return max(upper / self.limit, 0.0)
        if self.limit < 0:  # a change that may be negative, but not that much
            return max(lower / self.limit, 0.0)
        return max((1 - lower) / (1 - self.limit), 0.0) if self.limit < 1 else None

    @property
    def margin(self) -> str:
        """What is left of the threshold, in words."""
        if self.limit == 0:
            return "none is allowed"
        used = self.used
        if used is None:
            return ""
        return f"uses {used:.0%} of the limit" if used < 10 else f"{used:.0f} times the limit"


def gate_rows(gates: Value) -> list[GateRow]:
    """Write every gate of a report or a slice."""
    return [_gate_row(gate) for gate in gates.items]


def _gate_row(gate: Value) -> GateRow:
    number, bounds, limit = gate["value"].number, gate["interval"].interval, gate["threshold"].number
    verdict = gate["verdict"].text
    # any other word would be a style of the page, or a verdict of its own making
    known = cast(Verdict, verdict if verdict in VERDICTS else "undecided")
    plain = Gate(gate["name"].text, number, bounds, limit, known, gate["reason"].text)
    name, value, interval, threshold, _, reason = next(iter(table_rows([plain])))
    at_least, within = threshold.startswith((">", "≥")), threshold.startswith(("+-", "±"))
    pretty = threshold.replace(">= ", "≥ ").replace("<= ", "≤ ").replace("+- ", "± ").replace(" -", " −")
    return GateRow(
        name=name,
        value=minus(value) or DASH,
        interval=_between(interval) or DASH,
        threshold=pretty or DASH,
        verdict=known,
        reason=reason,
        number=number,
        bounds=bounds or (None if number is None else (number, number)),
        limit=limit,
        direction="at least" if at_least else "within" if within else "at most",
    )


def _between(interval: str) -> str:
    """Write `a .. b` as a to b, the unit once: 0.0005 to 0.0006 nat."""
    lower, _, upper = interval.partition(" .. ")
    _, _, unit = upper.partition(" ")
    return " to ".join(filter(None, (minus(lower.removesuffix(f" {unit}")), minus(upper))))


def numbered(index: int, report: Value) -> str:
    """Name a report among several, which may be of one bundle on two machines."""
    return f"{index} {name_of(report.object)} on {place_of(report.object)}"


def processor(report: Value) -> str:
    """Name the class of processors, and say that it was emulated where it was."""
    where = report["environment"]
    return f"{where['cpu_class'].text} (emulated)" if where["emulated"] else where["cpu_class"].text


def verdict(report: Value) -> str:
    """Return the verdict's one word; what is not a verdict reads as undecided."""
    word = report["verdict"].text
    return word if word in ("passed", "failed") else "undecided"


def headline(report: Value) -> str:
    """Return the verdict as the page's largest words: PASSED, size only."""
    return verdict(report).upper() + (", size only" if report["size_only"].raw is True else "")


def tally(reports: Sequence[Value]) -> str:
    """Count the verdicts of several reports."""
    counts = Counter(verdict(report) for report in reports)
    said = ", ".join(f"{number} {word}" for word, number in sorted(counts.items()))
    return f"{plural(len(reports), 'report')}: {said}. The worst decides."


def compared(report: Value) -> str:
    """Say in one sentence what was compared with what, on what."""
    bundle = report["bundle"]
    model, faces = bundle["model"].text, report["faces"].number
    what = f"{model}, exported for {bundle['target'].text} as {bundle['precision'].text}"
    ran = f"run by {bundle['engine'].text} on {processor(report)}"
    if not faces:
        return f"{what} and {ran}: no faces were compared with the float checkpoint."
    name = report["reference"]["name"]
    of = f" of {name.text}" if name else ""
    return f"{what}, compared with its float checkpoint on {plural(faces, 'face')}{of}; {ran}."


def explained(report: Value) -> str:
    """Say in one or two sentences which gates made the verdict."""
    rows = gate_rows(report["gates"])
    named = {word: [row.name for row in rows if row.verdict == word] for word in VERDICTS}
    ran = len(rows) - len(named["not run"])
    said = []
    if named["failed"]:
        said.append(f"Failed: {'; '.join(named['failed'])}.")
    if named["undecided"]:
        said.append(
            f"Undecided, as the interval reaches across the threshold: {'; '.join(named['undecided'])}."
        )
    if named["size only"]:
        said.append("The bundle is smaller, but not fast enough against float to be called faster.")
    if not ran:
        said.append("No gate was run, so nothing is proven.")
    elif len(named["passed"]) == ran:
        said.append(f"{'All ' if ran == len(rows) > 1 else ''}{plural(ran, 'gate')} passed.")
    else:
        said.append(f"{len(named['passed'])} of {plural(ran, 'gate')} passed.")
    if named["not run"]:
        said.append(f"Not run: {'; '.join(named['not run'])}.")
    return " ".join(said)


@dataclass(frozen=True, slots=True)
class KeyFigure:
    """One of the few figures at the top: its name, the value, and what it is to be seen against."""

    name: str
    value: str
    note: str


def key_figures(report: Value) -> list[KeyFigure]:
    """Return the figures of the top: accuracy, flips, divergence, calibration, coverage, time."""
    figures, kept = report["figures"], report["details"]["abstention"]
    found = [
        _against(figures, "accuracy", "Accuracy", percent, points),
        _flips(report),
        _figure(
            "Divergence, mean",
            small(figures["js_mean"].number, " nat"),
            f"95% of faces below {small(figures['js_p95'].number)}",
        ),
        _against(figures, "ece", "Calibration error", decimal, lambda change: minus(f"{change or 0:+.4f}")),
        _against(kept, "coverage", "Faces answered", percent, points),
    ]
    times = figures["latency_ms"]
    if times["p50"].number is not None:
        note = (
            f"{decimal(times['ratio'].number, 2)}x the speed of fp32"
            if times["ratio"]
            else "fp32 was not timed"
        )
        found.append(KeyFigure("Time per face, p50", f"{times['p50'].number:.3g} ms", note))
    return found


def _figure(name: str, value: str, note: str) -> KeyFigure:
    return KeyFigure(name, MISSING, "") if value == DASH else KeyFigure(name, value, note)


def _against(
    figures: Value,
    key: str,
    name: str,
    write: Callable[[float | None], str],
    write_change: Callable[[float | None], str],
) -> KeyFigure:
    ours, theirs = figures[key].number, figures[f"reference_{key}"].number
    change = difference(ours, theirs)
    note = "" if change is None else f"float {write(theirs)} ({write_change(change)})"
    return _figure(name, write(ours), note)


def _flips(report: Value) -> KeyFigure:
    figures = report["figures"]
    flips, faces = figures["flips"].number, report["faces"].number
    if flips is None or not faces:
        return KeyFigure("Labels changed", MISSING, "")
    lost, gained = figures["flips_to_wrong"].number, figures["flips_to_right"].number
    directions = "" if lost is None else f": {count(lost)} lost, {count(gained)} gained"
    return KeyFigure(
        "Labels changed", percent(flips / faces), f"{count(flips)} of {count(faces)}{directions}"
    )


def slice_rows(report: Value) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Return each column of slices with a row per value: the value, then `SLICE_COLUMNS`."""
    return [
        (one["column"].text, [_slice_row(value) for value in one["values"].items])
        for one in report["slices"].items
    ]


def _slice_row(value: Value) -> tuple[str, ...]:
    figures, faces, flips = value["figures"], value["faces"].number, value["figures"]["flips"].number
    changed = DASH if flips is None or not faces else f"{count(flips)} ({percent(flips / faces)})"
    accuracies = (percent(figures[key].number) for key in ("accuracy", "reference_accuracy"))
    return value["value"].text, count(faces), *accuracies, changed, _found(gate_rows(value["gates"]))


def _found(rows: Sequence[GateRow]) -> str:
    """Name the gates that failed and count those that could not decide; else count those that passed."""
    failed = [row.name for row in rows if row.verdict == "failed"]
    counts = Counter(row.verdict for row in rows)
    said = [f"failed: {', '.join(failed)}"] if failed else []
    said += [f"{counts['undecided']} undecided"] if counts["undecided"] else []
    return "; ".join(said) or (f"{counts['passed']} passed" if counts["passed"] else "none run")


def matrix_figures(report: Value) -> list[str]:
    """Return the figures that a table of several reports has room for, in the order of `MATRIX_FIGURES`."""
    figures, faces = report["figures"], report["faces"].number
    flips, p50 = figures["flips"].number, figures["latency_ms"]["p50"].number
    change = difference(figures["ece"].number, figures["reference_ece"].number)
    return [
        percent(figures["accuracy"].number),
        percent(flips / faces if flips is not None and faces else None),
        small(figures["js_mean"].number),
        DASH if change is None else minus(f"{change:+.4f}"),
        DASH if p50 is None else f"{p50:.3g}",
    ]
