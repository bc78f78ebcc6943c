"""What people read: tables and progress on standard error, through rich. No figure is made here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from edge_fer.cli_errors import one_line
from edge_fer.recognizer import Analysis, Prediction

if TYPE_CHECKING:
    from edge_fer.timeline import Timeline

_PIPED_WIDTH = 160  # a pipe has no width; long paths should not be folded at 80
_BAR_CELLS = 24
_TOP = 3
_PEOPLE = 40  # rows; a street seen for a week has thousands
_STRIP_CELLS = 32
_OTHER_COLUMNS = 84  # width of the table without the time line
_VERDICT_STYLES = {
    "passed": "green",
    "failed": "bold red",
    "undecided": "yellow",
    "size only": "yellow",
    "not run": "dim",
}


def console() -> Console:
    """Return a console on standard error, without colours when that is no terminal."""
    width = None if sys.stderr.isatty() else _PIPED_WIDTH
    stream = cast("TextIO", _Listened(getattr(sys.stderr, "rich_proxied_file", sys.stderr)))
    return Console(file=stream, stderr=True, highlight=False, markup=False, width=width)


class _Listened:
    """Standard error whose reader may go away: the work matters more than what is said of it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; a cell that is a verdict gets its colour."""
    table = Table(title=Text(one_line(title)), title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(cell), style=_VERDICT_STYLES.get(cell, "")) for cell in row))
    console().print(table)


def face_rows(source: str, analysis: Analysis) -> list[tuple[str, ...]]:
    """Return one row of texts per face: source, face, label, probability, reliability, the most probable."""
    if not analysis.faces:
        return [(source, "", "no face found", "", "", "")]
    return [
        (
            source,
            str(number + 1),
            face.prediction.label + (" (unsure)" if face.prediction.abstained else ""),
            f"{face.prediction.probabilities[face.prediction.top]:.1%}",
            f"{face.prediction.reliability:.2f}",
            _most_probable(face.prediction),
        )
        for number, face in enumerate(analysis.faces)
    ]


def print_faces(rows: Sequence[Sequence[str]]) -> None:
    """Print the table of faces."""
    print_table("Faces", ("source", "face", "label", "probability", "reliability", "most probable"), rows)


def print_distribution(prediction: Prediction) -> None:
    """Print one face's whole distribution, corrected and primary, with bars."""
    rows = [
        (label, f"{probability:.1%}", f"{primary:.1%}", "█" * round(_BAR_CELLS * probability))
        for label, probability, primary in zip(
            prediction.labels, prediction.probabilities.tolist(), prediction.primary.tolist(), strict=True
        )
    ]
    print_table("Distribution", ("label", "corrected", "primary", ""), rows)


def print_people(timeline: Timeline) -> None:
    """Print the table of people, in the order they came, with a strip of coloured blocks over the whole time.

    The blocks hold each label's letter, which a line below explains; "?" is unsure and "." is absent.
    """
    from edge_fer.timeline import LETTERS, UNSURE, clock

    people = timeline.people()
    shown = sorted(people[:_PEOPLE], key=lambda person: (person.first_s, person.track))
    out = console()
    table = Table(title=Text(one_line(f"People in {timeline.source}")), title_justify="left")
    for column in ("person", "from", "to", "frames", "mostly", "reliability", "abstained", "time line"):
        table.add_column(column, no_wrap=column == "time line")
    room = min(_STRIP_CELLS, max(out.width - _OTHER_COLUMNS, 8))
    for person in shown:
        mostly = f"{person.label} ({person.shares[person.label]:.0%})" if person.label else UNSURE
        cells = [
            f"#{person.track}",
            clock(person.first_s),
            clock(person.last_s),
            f"{person.frames:,}",
            mostly,
        ]
        cells += [f"{person.reliability:.2f}", f"{person.abstained:.0%}"]
        strip = _strip(timeline.strip(person.track, room), out.color_system is not None)
        table.add_row(*map(Text, cells), strip)
    out.print(table)
    hidden = len(people) - len(shown) + timeline.more
    if hidden:
        out.print(f"and {hidden} more, seen more briefly")
    seen = {label for person in shown for label in person.shares}
    if seen:
        out.print(", ".join(f"{letter} {label}" for label, letter in LETTERS.items() if label in seen))


def _strip(shown: Sequence[str | None], coloured: bool) -> Text:
    """Return what was shown, a character each: None is absent."""
    from edge_fer.draw import label_colour
    from edge_fer.timeline import LETTERS, UNSURE

    strip = Text()
    for label in shown:
        letter = "." if label is None else LETTERS.get(label, label[:1])
        if not coloured or label is None:
            strip.append(letter)
        else:
            red, green, blue = label_colour(None if label == UNSURE else label)
            strip.append(letter, style=f"rgb(20,20,20) on rgb({red},{green},{blue})")
    return strip


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal, nothing elsewhere; it takes the number done so far."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(description, total=total)
        yield lambda done: bar.update(task, completed=done)


def _most_probable(prediction: Prediction) -> str:
    ranked = sorted(zip(prediction.probabilities.tolist(), prediction.labels, strict=True), reverse=True)
    return ", ".join(f"{label} {probability:.2f}" for probability, label in ranked[:_TOP])
