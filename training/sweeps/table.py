"""The Markdown of a sweep: published figures and ours, row under row, at the last epoch and at the best."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from training.sweeps.figures import EPOCHS, PARAMETERS, write_figure
from training.sweeps.grid import NO_CELL, NOT_PRINTED, Condition, Figure, Grid, Printed, Row
from training.sweeps.outcome import Outcome

EPOCH_OF_THE_PAPER = {
    "last": "The paper reports the last epoch.",
    "best": "The paper reports the best epoch on its test faces: see the second table, too.",
    "unstated": "Which epoch the paper reports it does not say.",
    "none": "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The runs of one cell, by seed, finished or failed."""

    row: Row
    condition: Condition
    name: str
    outcomes: tuple[Outcome, ...]

    @property
    def finished(self) -> tuple[Outcome, ...]:
        """Its runs that came to their end."""
        return tuple(outcome for outcome in self.outcomes if not outcome.failed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What there is to show: a grid, what was trained of it, and the names of data sets not given so far."""

    grid: Grid
    trained: Sequence[Trained] = ()
    absent: Collection[str] = ()

    def numbers(self) -> dict[str, int]:
        """Return the numbers of the notes, in the order in which the table refers to them."""
        return {key: number for number, key in enumerate(self.grid.used_notes(), start=1)}


def render(page: Page) -> str:
    """Return the whole page as Markdown."""
    grid = page.grid
    parts = [f"# {escape(grid.title)}"]
    if grid.source:
        parts.append(f"Published: {escape(grid.source)}. {EPOCH_OF_THE_PAPER[grid.epoch]}".rstrip())
    parts += [escape(remark) for remark in grid.remarks]
    parts += ["## Last epoch", figures_table(page, best=False), explain(grid), *not_here(page)]
    notes = [f"{number}. {escape(grid.notes[key])}" for key, number in page.numbers().items()]
    parts += ["\n".join(notes)] * bool(notes)
    finished = [cell for cell in page.trained if cell.finished]
    if finished:
        parts += ["## Best epoch by accuracy on the validation faces", figures_table(page, best=True)]
    failures = [
        f"* {escape(cell.name)}: {escape(outcome.failed)}"
        for cell in page.trained
        for outcome in cell.outcomes
        if outcome.failed
    ]
    parts += ["## Failed", "\n".join(dict.fromkeys(failures))] * bool(failures)
    if finished:
        machines = dict.fromkeys(outcome.machine for cell in finished for outcome in cell.finished)
        parts += ["## Runs", runs_table(finished), "\n".join(f"* {escape(machine)}" for machine in machines)]
    return "\n\n".join(parts) + "\n"


def explain(grid: Grid) -> str:
    """Return what the cells are."""
    text = (
        "Ours: validation faces, in per cent but for F1, ECE, NLL and counts; several seeds: mean ± sample "
        "standard deviation. Empty: not trained (yet)."
    )
    published = any(row.published for row in grid.rows)
    return text + (' "–": the paper has no figure there. [n]: a note below.' if published else "")


def not_here(page: Page) -> list[str]:
    """Return why some cells will stay empty."""
    reasons = [f"* {escape(row.name)}: {escape(row.missing)}" for row in page.grid.rows if row.missing]
    if page.absent:
        reasons.append(f"* all of {', '.join(page.absent)}: the data were not given")
    return ["Not trained:", "\n".join(reasons)] if reasons else []


def figures_table(page: Page, *, best: bool) -> str:
    """Return one table: of each row what was published, then ours.

    What was published at the last epoch does not stand beside our best one.
    """
    grid, columns = page.grid, page.grid.columns()
    numbers = {} if best else page.numbers()
    by_cell = {(cell.row.name, cell.condition.name): cell for cell in page.trained}
    headings = [escape(grid.heading(*column)) for column in columns]
    lines = [f"| | | {' | '.join(headings)} |", "|---|---|" + "---:|" * len(columns)]
    for row in grid.rows:
        name = escape(row.name) + marks(row.notes, numbers)
        if row.published and not (best and grid.epoch == "last"):
            cells = [published_cell(cell, numbers) for cell in row.published]
            lines.append(f"| {name} | published | {' | '.join(cells)} |")
            name = ""
        ours = [by_cell.get((row.name, condition.name)) for condition, _ in columns]
        if any(cell is not None and cell.condition.data not in page.absent for cell in ours):
            cells = [
                our_cell(cell, figure, best=best) for cell, (_, figure) in zip(ours, columns, strict=True)
            ]
            lines.append(f"| {name} | ours | {' | '.join(cells)} |")
    return "\n".join(lines)


def published_cell(cell: Printed, numbers: Mapping[str, int]) -> str:
    """Return the text of a published cell, with the numbers of its notes."""
    text = {NO_CELL: "", NOT_PRINTED: "–"}.get(cell.text, escape(cell.text))
    return text + marks(cell.notes, numbers)


def our_cell(cell: Trained | None, figure: Figure, *, best: bool) -> str:
    """Return the text of one of our cells, empty while nothing of it is finished."""
    if cell is None or not figure.figure:
        return ""
    of_seeds = [outcome.best if best else outcome.last for outcome in cell.finished]
    return write_figure(
        figure.figure, [values[figure.figure] for values in of_seeds if figure.figure in values]
    )


def runs_table(finished: Sequence[Trained]) -> str:
    """Return the table of runs: how far each cell got; cells that share their runs stand there once."""
    lines = [
        "| run | seeds | epochs | training faces seen | minutes | parameters |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, cell in {cell.name: cell for cell in finished}.items():
        runs = cell.finished
        epochs, parameters = (
            write_figure(figure, [outcome.last[figure] for outcome in runs])
            for figure in (EPOCHS, PARAMETERS)
        )
        faces = statistics.fmean(outcome.faces for outcome in runs)
        minutes = statistics.fmean(outcome.minutes for outcome in runs)
        lines.append(f"| {name} | {len(runs)} | {epochs} | {faces:,.0f} | {minutes:.1f} | {parameters} |")
    return "\n".join(lines)


def marks(notes: Sequence[str], numbers: Mapping[str, int]) -> str:
    """Return the references to notes; none in a table that has no notes below it."""
    found = [str(numbers[key]) for key in notes if key in numbers]
    return f" [{', '.join(found)}]" if found else ""


def escape(text: str) -> str:
    """Return a text in which nothing is Markdown's own."""
    for character in "\\|`*_<>[]":
        text = text.replace(character, f"\\{character}")
    return text
