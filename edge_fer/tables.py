"""What people read: tables and progress on standard error, through rich. No figure is made here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from edge_fer.cli_errors import one_line
from edge_fer.recognizer import Analysis, Prediction

_PIPED_WIDTH = 160  # a pipe has no width; long paths should not be folded at 80
_BAR_CELLS = 24
_TOP = 3
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
    return Console(stderr=True, highlight=False, markup=False, width=width)


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
