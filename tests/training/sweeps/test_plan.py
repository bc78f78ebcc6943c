"""Plans: what each cell is trained with, which cells share a run, what the command line leaves of a grid."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import tomllib
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_fer.errors import RecipeError, TrainingError
from tests.training.sweeps.columns import COLUMNS
from training.recipe import load_recipe
from training.sweeps.grid import Grid, load_grid, parse_grid
from training.sweeps.grids import grid_names
from training.sweeps.plan import RECIPES, Choice, chosen, merge, override, plan_cells
from training.sweeps.toml_text import toml_text

BASE = """
name = "base"
[network]
model = "grefel-lite"
classes = 3
input_size = 32
[optimiser]
epochs = 5
seed = 7
[method]
smoothing = 0.3
"""
GRID = f"""
set.optimiser.batch_size = 8
{COLUMNS}
set.method.anchor = 0.5
[[rows]]
name = "K = 1"
set.network.anchors = 1
[[rows]]
name = "K = 10"
set.method.anchor = 0.25
published = "1 2 . ."
[[rows]]
name = "K = 10, again"
set.network.anchors = 10
set.method.anchor = 0.25
[[rows]]
name = "other"
missing = "not here"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "base.toml").write_text(BASE, encoding="utf-8")
    return tmp_path


def grid_in(folder: Path, text: str = GRID) -> Grid:
    return parse_grid(tomllib.loads(text), folder / "losses.toml")


def names(grid: Grid, **choice: Any) -> list[str]:
    return [cell.name for cell in chosen(grid, plan_cells(grid, Choice(**choice)), Choice(**choice))]


def test_cells_get_the_recipe_and_what_grid_column_and_row_set(folder: Path) -> None:
    cells = {(cell.row.name, cell.condition.name): cell for cell in plan_cells(grid_in(folder), Choice())}
    assert list(cells) == [
        ("K = 1", "clean"),
        ("K = 1", "noisy"),
        ("K = 10", "clean"),
        ("K = 10, again", "clean"),
        ("K = 10, again", "noisy"),
    ]
    values, recipe = cells["K = 1", "noisy"].recipe(2)
    assert values["name"] == recipe.name == "k-1.noisy.seed-2"
    assert recipe.optimiser.seed == 9 and recipe.optimiser.epochs == 5 and recipe.optimiser.batch_size == 8
    assert recipe.network.anchors == 1 and recipe.data.noise == 0.1
    assert recipe.method.smoothing == 0.3 and recipe.method.anchor == 0.5
    _, row_wins = cells["K = 10, again", "noisy"].recipe(0)
    assert row_wins.method.anchor == 0.25 and row_wins.data.noise == 0.1
    _, clean = cells["K = 1", "clean"].recipe(0)
    assert clean.data.noise == 0.0 and clean.method.anchor == 1.0


def test_cells_that_train_the_same_share_their_runs(folder: Path) -> None:
    text = GRID.replace("set.network.anchors = 10\n", "")
    assert names(grid_in(folder, text)) == [
        "k-1.clean",
        "k-1.noisy",
        "k-10.clean",
        "k-10-again.noisy",
    ]
    assert len(names(grid_in(folder))) == 5  # said or left to the default: not compared, trained twice
    alike = GRID.replace("set.method.anchor = 0.5\n", "").replace("set.data.noise = 0.1\n", "")
    cells = plan_cells(grid_in(folder, alike), Choice())
    assert {cell.condition.data for cell in cells} == {"faces", "others"}
    assert "k-1.noisy" in {cell.name for cell in cells}  # other data, though the recipe is the same


@pytest.mark.parametrize(
    ("choice", "left"),
    [
        ({"rows": ("k = 1",)}, ["k-1.clean", "k-1.noisy"]),
        ({"rows": ("K = 10*",), "columns": ("noisy",)}, ["k-10-again.noisy"]),
        ({"columns": ("*F1",), "rows": ("K = 1", "K = 10")}, ["k-1.clean", "k-1.noisy", "k-10.clean"]),
        ({"columns": ("clean: *",)}, ["k-1.clean", "k-10.clean", "k-10-again.clean"]),
        ({"rows": ("other",)}, []),
    ],
)
def test_rows_and_columns_are_chosen_by_pattern(
    choice: dict[str, Any], left: list[str], folder: Path
) -> None:
    assert names(grid_in(folder), **choice) == left


def test_a_shared_run_is_chosen_by_any_of_its_rows(folder: Path) -> None:
    grid = grid_in(folder, GRID.replace("set.network.anchors = 10\n", ""))
    assert names(grid, rows=("*again",), columns=("clean",)) == ["k-10.clean"]


def test_patterns_that_fit_nothing_are_refused(folder: Path) -> None:
    with pytest.raises(TrainingError, match=r"expected a row of the table: K = 1; K = 10; .*; got 'K = 2'"):
        names(grid_in(folder), rows=("K = 2",))
    with pytest.raises(TrainingError, match=r"expected a column of the table: clean: Accuracy; .*; got 'x'"):
        names(grid_in(folder), columns=("clean", "x"))


def test_length_and_recipe_come_from_the_command_line(folder: Path) -> None:
    def first(**choice: Any) -> Any:
        return plan_cells(grid_in(folder), Choice(**choice))[0].recipe(0)[1]

    assert first(epochs=2).optimiser.epochs == 2
    timed = first(minutes=1.5).optimiser
    assert timed.minutes == 1.5 and timed.epochs > 10_000


def test_a_recipe_for_all_rows_leaves_each_its_method(folder: Path) -> None:
    other = folder / "other.toml"
    other.write_text(BASE.replace("smoothing = 0.3", "margin = 2.0").replace("seed = 7", "seed = 4"))
    recipe = plan_cells(grid_in(folder), Choice(recipe=other))[0].recipe(0)[1]
    assert recipe.optimiser.seed == 4
    assert recipe.method.smoothing == 0.3 and recipe.method.margin == 4.0
    nameless = grid_in(folder, GRID.replace('recipe = "base.toml"', ""))
    recipe = plan_cells(nameless, Choice(recipe=other))[0].recipe(0)[1]
    assert recipe.method.smoothing == 0.11 and recipe.method.margin == 2.0


def test_rows_without_a_usable_recipe_are_named(folder: Path) -> None:
    with pytest.raises(RecipeError, match="the row K = 1 names no recipe"):
        plan_cells(grid_in(folder, GRID.replace('recipe = "base.toml"', "")), Choice())
    with pytest.raises(RecipeError, match=r"none.toml: expected a recipe file"):
        plan_cells(grid_in(folder, GRID.replace("base.toml", "none.toml")), Choice())
    wrong = grid_in(folder, GRID.replace("set.network.anchors = 1\n", "set.network.anker = 1\n"))
    with pytest.raises(RecipeError, match="K = 1, clean: network: unknown key 'anker'"):
        plan_cells(wrong, Choice())[0].recipe(0)
    wrong = grid_in(folder, GRID.replace("set.network.anchors = 1\n", "set.network = { anchors = 0 }\n"))
    with pytest.raises(RecipeError, match=r"K = 1, clean: expected network.anchors of 1 to 10000, got 0"):
        plan_cells(wrong, Choice())[0].recipe(0)
    wrong = grid_in(
        folder, GRID.replace("set.network.anchors = 1\n", "set.network.anchors.x = 1\nset.name.y=1\n")
    )
    with pytest.raises(RecipeError, match="K = 1: expected name set as the recipe has it"):
        plan_cells(wrong, Choice())


@pytest.mark.parametrize("name", grid_names())
@pytest.mark.parametrize("choice", [Choice(), Choice(minutes=1.0, recipe=RECIPES / "comparison.toml")])
def test_every_cell_of_a_shipped_grid_can_be_trained(name: str, choice: Choice) -> None:
    grid = load_grid(name)
    cells = plan_cells(grid, choice)
    assert {cell.row.name for cell in cells} == {row.name for row in grid.rows if row.missing is None}
    assert {cell.recipe(0)[1].name for cell in cells} == {f"{cell.name}.seed-0" for cell in cells}


def test_another_method_drops_the_options_of_the_one_before() -> None:
    base = {"method": {"smoothing": 0.3}, "network": {"model": "grefel-lite"}}
    assert override(base, [{"method": {"name": "grefel", "anchor": 0.1}}], "row")["method"] == {
        "smoothing": 0.3,
        "name": "grefel",
        "anchor": 0.1,
    }
    changed = override(base, [{"method": {"name": "scn"}}, {"method": {"margin": 0.1}}], "row")
    assert changed == {"method": {"name": "scn", "margin": 0.1}, "network": {"model": "grefel-lite"}}
    back = override(changed, [{"method": {"name": "grefel"}}], "row")
    assert back["method"] == {"name": "grefel"}


def test_merging_leaves_both_sides_alone() -> None:
    under: dict[str, Any] = {"a": {"b": 1, "c": 2}, "d": 3}
    over: dict[str, Any] = {"a": {"b": 4}, "e": {"f": 5}}
    assert merge(under, over, "x") == {"a": {"b": 4, "c": 2}, "d": 3, "e": {"f": 5}}
    assert under == {"a": {"b": 1, "c": 2}, "d": 3} and over == {"a": {"b": 4}, "e": {"f": 5}}


def test_the_recipe_of_a_cell_is_one_that_train_reads(folder: Path) -> None:
    values, recipe = plan_cells(grid_in(folder), Choice(minutes=0.1))[1].recipe(0)
    path = folder / "cell.toml"
    path.write_text(toml_text(values), encoding="utf-8")
    assert load_recipe(path) == recipe


LEAVES = (
    st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False)
    | st.text(st.characters(blacklist_categories=("Cs",)), max_size=6)
)
TABLES = st.recursive(
    st.dictionaries(st.text(st.characters(blacklist_categories=("Cs",)), max_size=4), LEAVES, max_size=3),
    lambda inner: st.dictionaries(
        st.text(st.characters(blacklist_categories=("Cs",)), max_size=4),
        LEAVES | st.lists(LEAVES, max_size=3) | inner,
        max_size=4,
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(values=TABLES)
def test_tables_are_written_as_they_are_read(values: dict[str, Any]) -> None:
    assert tomllib.loads(toml_text(values)) == values


def test_what_toml_has_no_text_for_here_is_no_recipe() -> None:
    assert math.isnan(tomllib.loads(toml_text({"a": math.nan}))["a"])
    with pytest.raises(TypeError):
        toml_text({"a": None})
