"""What a sweep prints and trains: a table of rows and columns as a TOML file, parsed strictly.

Columns are figures under conditions: a condition (a data set, a noise rate) is trained, its figures are read
from the same run. Knows no recipe and no run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomllib

from edge_fer.cli_errors import one_line
from edge_fer.errors import RecipeError
from training.sweeps.figures import is_figure
from training.sweeps.grids import GRIDS, grid_names

Settings = dict[str, Any]
"""Overrides of a recipe: its own tables, with those keys that are set."""

EPOCHS = ("last", "best", "unstated", "none")
LONGEST_NAME = 80
NO_CELL, NOT_PRINTED = ".", "-"
"""How published cells are written that a table does not have, and those that its paper leaves empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A column of a condition: its name, and which figure of a run stands in it ("": none of ours)."""

    name: str
    figure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What the runs of a column have in common: the name of the data set and overrides of the recipe."""

    name: str
    data: str
    set: Settings


@dataclass(frozen=True, slots=True)
class Printed:
    """A cell as it was published, and the keys of its notes."""

    text: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row: which recipe it trains with which overrides, and what was published, a cell per column.

    Attributes:
        missing: why it is not trained here; None where it is.
        notes: keys of the notes on the whole row.
        published: empty where nothing was.
    """

    name: str
    recipe: str | None = None
    set: Settings = field(default_factory=dict)
    missing: str | None = None
    notes: tuple[str, ...] = ()
    published: tuple[Printed, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table; its columns are `conditions` x `figures`, a condition's figures side by side.

    Attributes:
        name: of its file.
        folder: where the recipes that it names by file lie.
        epoch: which epoch the paper reports: last, best, unstated, or none where nothing was published.
        set: overrides of every run.
        notes: the footnotes, by key.
        remarks: sentences about the whole table.
    """

    name: str
    folder: Path
    title: str
    source: str
    epoch: str
    set: Settings
    figures: tuple[Figure, ...]
    conditions: tuple[Condition, ...]
    rows: tuple[Row, ...]
    notes: Mapping[str, str]
    remarks: tuple[str, ...]

    def columns(self) -> tuple[tuple[Condition, Figure], ...]:
        """Return the columns in order."""
        return tuple((condition, figure) for condition in self.conditions for figure in self.figures)

    def used_notes(self) -> tuple[str, ...]:
        """Return the keys of the notes in the order in which the table refers to them."""
        keys: dict[str, None] = {}
        for row in self.rows:
            keys |= dict.fromkeys((*row.notes, *(key for cell in row.published for key in cell.notes)))
        return tuple(keys)

    def heading(self, condition: Condition, figure: Figure) -> str:
        """Return the name of a column."""
        if len(self.figures) == 1 and condition.name:
            return condition.name
        return f"{condition.name}: {figure.name}" if condition.name else figure.name

    def has_cell(self, row: Row, condition: Condition) -> bool:
        """Return whether the table has any cell of this row under this condition."""
        start = self.conditions.index(condition) * len(self.figures)
        cells = row.published[start : start + len(self.figures)]
        return not cells or any(cell.text != NO_CELL for cell in cells)


def load_grid(name: str) -> Grid:
    """Read a grid that is shipped, by its name, or a TOML file.

    Raises:
        RecipeError: there is none of that name, unreadable, not TOML, or not a grid.
    """
    path = GRIDS / f"{name}.toml" if name in grid_names() else Path(name)
    if path.suffix != ".toml":
        raise RecipeError(
            f"expected a TOML file or one of the grids {', '.join(grid_names())}, got {one_line(name)!r}"
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else one_line(error)
        raise RecipeError(f"{path}: expected a grid as a TOML file, got: {reason}") from error
    return parse_grid(values, path)


def parse_grid(values: Mapping[str, Any], path: Path) -> Grid:
    """Build a grid from the tables of a file.

    Raises:
        RecipeError: a key is unknown or missing, a value has another type, names or cells do not fit.
    """
    top = _Table(values, str(path))
    figures = tuple(_figure(table) for table in top.tables("figures"))
    data, recipe = top.text("data", ""), top.text("recipe", "")
    conditions = tuple(_condition(table, data) for table in top.tables("conditions", one=True))
    count = len(conditions) * len(figures)
    rows = tuple(_row(table, recipe, count) for table in top.tables("rows"))
    grid = Grid(
        name=path.stem,
        folder=path.parent,
        title=top.text("title"),
        source=top.text("source", ""),
        epoch=top.text("epoch", "none"),
        set=top.table("set"),
        figures=figures,
        conditions=conditions,
        rows=rows,
        notes={key: _checked_text(text, top.where) for key, text in top.table("notes").items()},
        remarks=top.texts("remarks"),
    )
    top.finish()
    _check(grid, top.where)
    return grid


def slug(name: str) -> str:
    """Return a name as part of a file name: lower-case letters, digits, dots and hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower().replace("+", " plus ")).strip("-.")


def _figure(table: _Table) -> Figure:
    figure = Figure(name=table.name(), figure=table.text("figure", ""))
    if figure.figure and not is_figure(figure.figure):
        raise RecipeError(f"{table.where}: expected a figure of a run, got {figure.figure!r}")
    return table.finish(figure)


def _condition(table: _Table, data: str) -> Condition:
    name = table.name() if table.values else ""
    condition = Condition(name=name, data=table.text("data", data), set=table.table("set"))
    if not re.fullmatch(r"[a-z0-9.+-]+", condition.data):
        raise RecipeError(
            f"{table.where}: expected data = the name of a data set (a-z, 0-9, . + -), got {condition.data!r}"
        )
    return table.finish(condition)


def _row(table: _Table, recipe: str, columns: int) -> Row:
    printed = tuple(_printed(text) for text in table.text("published", "").split())
    row = Row(
        name=table.name(),
        recipe=table.text("recipe", recipe) or None,
        set=table.table("set"),
        missing=table.text("missing", "") or None,
        notes=table.texts("notes"),
        published=printed,
    )
    if printed and len(printed) != columns:
        raise RecipeError(f"{table.where}: expected published = {columns} cells, got {len(printed)}")
    return table.finish(row)


def _printed(text: str) -> Printed:
    number, *notes = text.split("^")
    return Printed(number, tuple(notes))


def _check(grid: Grid, where: str) -> None:
    """Refuse names that do not differ as file names, and notes that are not there."""
    if grid.epoch not in EPOCHS:
        raise RecipeError(f"{where}: expected epoch {' or '.join(EPOCHS)}, got {grid.epoch!r}")
    for kind, names in (
        ("rows", [slug(row.name) for row in grid.rows]),
        ("conditions", [slug(condition.name) for condition in grid.conditions]),
        ("figures", [figure.name for figure in grid.figures]),
    ):
        double = sorted({name for name in names if names.count(name) > 1})
        if double:
            raise RecipeError(f"{where}: expected {kind} of different names, got {double[0]!r} twice")
    used = grid.used_notes()
    unknown = sorted(set(used) - grid.notes.keys())
    if unknown:
        raise RecipeError(f"{where}: expected a note {unknown[0]!r} in [notes], found none")
    unused = sorted(grid.notes.keys() - set(used))
    if unused:
        raise RecipeError(
            f"{where}: expected the note {unused[0]!r} somewhere in the table, found it nowhere"
        )


def _checked_text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise RecipeError(f"{where}: expected text on one line, got {value!r}")
    return value


class _Table:
    """A TOML table that is read key by key; what is left over at the end was unknown."""

    def __init__(self, values: object, where: str) -> None:
        self.where = where
        if not isinstance(values, Mapping):
            raise RecipeError(f"{where}: expected a table, got {values!r}")
        self.values = dict(values)
        self.known: set[str] = set()

    def take(self, key: str, default: object) -> Any:
        self.known.add(key)
        return self.values.get(key, default)

    def text(self, key: str, default: str | None = None) -> str:
        value = self.take(key, default)
        if value is None:
            raise RecipeError(f"{self.where}: missing key {key!r}")
        return _checked_text(value, f"{self.where}: {key}")

    def name(self) -> str:
        """Return the name, out of which a file name can be made."""
        name = self.text("name")
        if not slug(name) or len(name) > LONGEST_NAME:
            raise RecipeError(
                f"{self.where}: expected a name of letters and digits, {LONGEST_NAME} at most, got {name!r}"
            )
        return name

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.take(key, [])
        if not isinstance(value, list):
            raise RecipeError(f"{self.where}: {key}: expected a list of texts, got {value!r}")
        return tuple(_checked_text(text, f"{self.where}: {key}") for text in value)

    def table(self, key: str) -> Settings:
        return _Table(self.take(key, {}), f"{self.where}: {key}").values

    def tables(self, key: str, *, one: bool = False) -> list[_Table]:
        """Return a list of tables; with `one` an absent list is that of one empty table."""
        value = self.take(key, [{}] if one else [])
        if not isinstance(value, list) or not value:
            raise RecipeError(f"{self.where}: expected at least one [[{key}]], got {value!r}")
        return [_Table(item, f"{self.where}: {key} {number}") for number, item in enumerate(value, start=1)]

    def finish(self, made: Any = None) -> Any:
        """Refuse what was not read."""
        unknown = sorted(self.values.keys() - self.known)
        if unknown:
            known = ", ".join(sorted(self.known))
            raise RecipeError(f"{self.where}: unknown key {unknown[0]!r}, expected one of {known}")
        return made
