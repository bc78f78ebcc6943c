"""From a grid to its training runs: each a recipe of its own, a name, and what it shares with other cells."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from edge_fer.errors import RecipeError, TrainingError
from training.methods import DEFAULT
from training.options import Recipe
from training.recipe import parse_recipe, read_tables
from training.recipe_rules import check
from training.sweeps.grid import Condition, Grid, Row, Settings, slug

RECIPES = Path(__file__).parents[1] / "recipes"
UNLIMITED_EPOCHS = 100_000
"""More than any budget of minutes reaches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the command line makes of a grid.

    Attributes:
        rows: patterns of names; empty for all.
        columns: patterns of the names of columns or of conditions; empty for all.
        seeds: how many runs a cell is the mean of.
        epochs: in place of the recipes'.
        minutes: of training per run, in place of a number of epochs.
        recipe: in place of the rows' own, but for [method].
    """

    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    seeds: int = 1
    epochs: int | None = None
    minutes: float | None = None
    recipe: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What is trained for a row under a condition; cells that train the same share their `name`."""

    row: Row
    condition: Condition
    name: str
    values: Settings

    def run_name(self, seed: int) -> str:
        """Return the name of one of its runs, `seed` counted from 0."""
        return f"{self.name}.seed-{seed}"

    def recipe(self, seed: int) -> tuple[Settings, Recipe]:
        """Return the recipe of one of its runs, as a file's tables and checked.

        Raises:
            RecipeError: no run can use it.
        """
        first = self.values.get("optimiser", {}).get("seed", 0)
        optimiser = {
            **self.values.get("optimiser", {}),
            "seed": first + seed if type(first) is int else first,
        }
        values = {**self.values, "name": self.run_name(seed), "optimiser": optimiser}
        where = f"{self.row.name}, {self.condition.name}" if self.condition.name else self.row.name
        recipe = parse_recipe(values, where)
        check(recipe, Path(where))
        return values, recipe


def plan_cells(grid: Grid, choice: Choice) -> tuple[Cell, ...]:
    """Return every cell that can be trained, those not chosen too: they name the folders of their runs.

    Raises:
        RecipeError: a row has no recipe, or what it sets does not fit into it.
    """
    cells, names = [], dict[str, str]()
    for row in grid.rows:
        if row.missing is not None:
            continue
        base = load_base(grid, row, choice)
        for condition in grid.conditions:
            if not grid.has_cell(row, condition):
                continue
            values = limited(override(base, (grid.set, condition.set, row.set), row.name), choice)
            own = slug(row.name) + (f".{slug(condition.name)}" if condition.name else "")
            same = json.dumps([condition.data, {**values, "name": ""}], sort_keys=True, default=str)
            cells.append(Cell(row=row, condition=condition, name=names.setdefault(same, own), values=values))
    return tuple(cells)


def chosen(grid: Grid, cells: Sequence[Cell], choice: Choice) -> tuple[Cell, ...]:
    """Return the cells in the rows and columns that were asked for, each run once.

    Raises:
        TrainingError: a pattern fits no row or no column.
    """
    rows = matching([row.name for row in grid.rows], choice.rows, "row")
    headings = {grid.heading(*column): column[0].name for column in grid.columns()}
    names = {**headings, **{condition.name: condition.name for condition in grid.conditions}}
    columns = {names[name] for name in matching([n for n in names if n], choice.columns, "column")}
    wanted = {
        cell.name: cell
        for cell in reversed(cells)
        if cell.row.name in rows and (not choice.columns or cell.condition.name in columns)
    }
    return tuple(cell for cell in cells if wanted.get(cell.name) is cell)


def matching(names: Sequence[str], patterns: Sequence[str], kind: str) -> set[str]:
    """Return the names that fit one of the patterns, in upper or lower case; all where there is none."""
    if not patterns:
        return set(names)
    found: set[str] = set()
    for pattern in patterns:
        fitting = {name for name in names if fnmatchcase(name.lower(), pattern.lower())}
        if not fitting:
            raise TrainingError(f"expected a {kind} of the table: {'; '.join(names)}; got {pattern!r}")
        found |= fitting
    return found


def load_base(grid: Grid, row: Row, choice: Choice) -> Settings:
    """Read the recipe that a row starts from, beside the grid or a shipped one.

    --recipe takes its place but for [method]: that is what the row is about.
    """
    if row.recipe is None:
        if choice.recipe is None:
            raise RecipeError(f"{grid.name}: the row {row.name} names no recipe; add one, or give --recipe")
        return read_tables(choice.recipe)
    shipped = not row.recipe.endswith(".toml")
    own = read_tables(RECIPES / f"{row.recipe}.toml" if shipped else grid.folder / row.recipe)
    if choice.recipe is None:
        return own
    return {**read_tables(choice.recipe), "method": own.get("method", {})}


def override(base: Settings, layers: Sequence[Settings], where: str) -> Settings:
    """Return a recipe's tables under those of the layers, the last on top.

    Where a layer names another method, the options of the one before it are dropped with it.
    """
    values = base
    for layer in layers:
        before, after = (method_of(tables) for tables in (values, layer))
        if after is not None and after != (before or DEFAULT):
            values = {key: value for key, value in values.items() if key != "method"}
        values = merge(values, layer, where)
    return values


def method_of(tables: Settings) -> object:
    """Return the name of the method, None where there is none."""
    method = tables.get("method")
    return method.get("name") if isinstance(method, Mapping) else None


def merge(under: Settings, over: Settings, where: str) -> Settings:
    """Return both, tables merged and single values taken from `over`."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping | None):
            merged[key] = merge(dict(below or {}), dict(value), f"{where}: {key}")
        elif isinstance(value, Mapping) or isinstance(below, Mapping):
            raise RecipeError(
                f"{where}: expected {key} set as the recipe has it, got {value!r} for {below!r}"
            )
        else:
            merged[key] = value
    return merged


def limited(values: Settings, choice: Choice) -> Settings:
    """Return the tables with the length of a run that was asked for."""
    limits: Settings = {}
    if choice.epochs is not None:
        limits = {"epochs": choice.epochs}
    if choice.minutes is not None:
        limits = {"epochs": UNLIMITED_EPOCHS, "minutes": choice.minutes}
    return merge(values, {"optimiser": limits}, "the command line") if limits else values
