"""Grids: those that are shipped are whole, any other TOML is a grid or refused in one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tomllib
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_fer.errors import RecipeError
from tests.training.sweeps.columns import COLUMNS
from training.sweeps.grid import load_grid, parse_grid, slug
from training.sweeps.grids import GRIDS, grid_names

# Every table that the papers at hand print, with its rows and columns.
TABLES = {
    "comparison": (12, 10),
    "exploration": (21, 5),
    "dmue-table-1": (8, 2),
    "dmue-table-2": (8, 2),
    "grefel-supplement-table-1": (9, 1),
    "grefel-supplement-table-2": (3, 4),
    "grefel-supplement-table-3": (7, 1),
    "grefel-supplement-table-4": (11, 10),
    "grefel-supplement-table-5": (11, 12),
    "grefel-table-1": (14, 6),
    "grefel-table-2": (4, 4),
    "grefel-table-3": (5, 2),
    "ldlva-table-1": (8, 2),
    "ldlva-table-2": (2, 1),
    "rac-rsl-alpha": (5, 2),
    "rac-rsl-lambda": (6, 2),
    "rac-rsl-table-1": (9, 9),
    "rac-rsl-table-2": (10, 9),
    "rac-rsl-table-3": (12, 9),
    "rac-rsl-table-4": (12, 9),
    "rac-rsl-table-5": (8, 9),
    "rac-rsl-table-6": (4, 9),
    "rac-rsl-table-7": (3, 9),
}
OWN = ("comparison", "exploration")  # grids that no paper printed
PAPERS = Path(__file__).resolve().parents[4] / "shared" / "papers"
TEXTS = {"grefel-table": "grefel", "grefel-supplement": "grefel-supplement", "ldlva": "ldlva-supplement"} | {
    "dmue": "dmue-supplement",
    "rac-rsl": "rac-rsl",
}
# The text of the paper breaks this row.
OVER_TWO_LINES = {("grefel-supplement-table-2", "GReFEL")}

GRID = f"""{COLUMNS}
[notes]
a = "impossible"
[[rows]]
name = "one"
published = "68.15^a 0.632 - ."
[[rows]]
name = "two"
missing = "not here"
"""


def parse(text: str) -> Any:
    return parse_grid(tomllib.loads(text), Path("losses.toml"))


def test_every_table_of_the_papers_is_shipped() -> None:
    shapes = {name: load_grid(name) for name in grid_names()}
    assert {name: (len(grid.rows), len(grid.columns())) for name, grid in shapes.items()} == TABLES


@pytest.mark.parametrize("name", grid_names())
def test_a_shipped_table_says_everything(name: str) -> None:
    grid = load_grid(name)
    assert grid.title and grid.name == name
    published = [row for row in grid.rows if row.published]
    assert len(published) == (0 if name in OWN else len(grid.rows))
    assert (grid.epoch == "none") == (name in OWN)
    assert bool(grid.source) == (name not in OWN)
    for row in grid.rows:
        assert row.missing or row.recipe
        for cell in row.published:
            assert re.fullmatch(r"\+?\d+\.\d+[MG]?|-|\.|not-converged", cell.text), cell


@pytest.mark.skipif(not PAPERS.is_dir(), reason="no text of the papers beside the checkout")
@pytest.mark.parametrize("name", [name for name in grid_names() if name not in OWN])
def test_every_printed_row_stands_in_the_text_of_its_paper(name: str) -> None:
    """Figure after figure in one line, so that none is in another one's column."""
    paper = next(text for start, text in TEXTS.items() if name.startswith(start))
    text = (PAPERS / f"{paper}.txt").read_text(encoding="utf-8")
    lines = [" ".join(["", *re.findall(r"\d+\.\d+", line), ""]) for line in text.splitlines()]
    for row in load_grid(name).rows:
        figures = [cell.text.strip("+MG") for cell in row.published if cell.text[-1] not in "-.d"]
        if (name, row.name) in OVER_TWO_LINES:
            assert all(any(f" {figure} " in line for line in lines) for figure in figures)
        else:
            assert any(" ".join(["", *figures, ""]) in line for line in lines), (row.name, figures)


def test_a_grid_has_its_figures_under_every_condition() -> None:
    grid = parse(GRID)
    headings = [grid.heading(*column) for column in grid.columns()]
    assert headings == ["clean: Accuracy", "clean: F1", "noisy: Accuracy", "noisy: F1"]
    assert [condition.data for condition in grid.conditions] == ["faces", "others"]
    one, two = grid.rows
    assert [(cell.text, cell.notes) for cell in one.published] == [
        ("68.15", ("a",)),
        ("0.632", ()),
        ("-", ()),
        (".", ()),
    ]
    assert one.recipe == "base.toml" and two.missing == "not here"
    assert all(grid.has_cell(row, condition) for row in grid.rows for condition in grid.conditions)
    without = parse(GRID.replace("- .", ". ."))
    assert not without.has_cell(without.rows[0], without.conditions[1])
    assert without.has_cell(without.rows[1], without.conditions[1])


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('title = "Losses"', "", "missing key 'title'"),
        ('title = "Losses"', 'title = "Los\\nses"', "text on one line"),
        ('title = "Losses"', 'titel = "Losses"', "missing key 'title'"),
        ('recipe = "base.toml"', "recipe = 3", "expected text on one line, got 3"),
        ('recipe = "base.toml"', 'recipes = "x"', "unknown key 'recipes'"),
        ('data = "faces"', 'data = "Fa ces"', "name of a data set"),
        ('data = "faces"', "", "name of a data set"),
        ("68.15^a 0.632 - .", "68.15^a 0.632", "expected published = 4 cells, got 2"),
        ("68.15^a", "68.15^b", "expected a note 'b'"),
        ("68.15^a", "68.15", "expected the note 'a' somewhere"),
        ('figure = "macro_f1"', 'figure = "f1"', "figure of a run, got 'f1'"),
        ('name = "two"', 'name = "ONE"', "rows of different names, got 'one' twice"),
        ('name = "noisy"', 'name = "clean!"', "conditions of different names"),
        ('name = "F1"', 'name = "Accuracy"', "figures of different names"),
        ('name = "two"', 'name = "!"', "a name of letters and digits"),
        ('name = "two"', 'name = "' + "a" * 81 + '"', "80 at most"),
        ("set.data.noise = 0.1", "set = 3", "conditions 2: set: expected a table, got 3"),
        ('missing = "not here"', 'mising = "not here"', "rows 2: unknown key 'mising'"),
        ('title = "Losses"', 'title = "Losses"\nepoch = "first"', "expected epoch last or best"),
        ('title = "Losses"', 'title = "Losses"\nremarks = "x"', "remarks: expected a list of texts"),
    ],
)
def test_what_is_no_grid_is_refused(before: str, after: str, said: str) -> None:
    assert before in GRID
    with pytest.raises(RecipeError) as error:
        parse(GRID.replace(before, after))
    assert said in str(error.value) and str(error.value).startswith("losses.toml: ")
    assert "\n" not in str(error.value)


def test_a_grid_needs_rows_and_figures() -> None:
    for key in ("rows", "figures"):
        values = tomllib.loads(GRID)
        del values[key]
        with pytest.raises(RecipeError, match=rf"at least one \[\[{key}\]\]"):
            parse_grid(values, Path("g.toml"))


def test_an_unknown_name_is_told_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        load_grid("grefel-table-9")
    assert all(name in str(error.value) for name in TABLES) and "'grefel-table-9'" in str(error.value)
    with pytest.raises(RecipeError, match="expected a grid as a TOML file, got: No such file"):
        load_grid(str(tmp_path / "none.toml"))
    for content in (b"title = ", b"\xff", b"a = " + b"[" * 5000):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(RecipeError, match=r"expected a grid as a TOML file") as error:
            load_grid(str(tmp_path / "bad.toml"))
        assert "\n" not in str(error.value)


def test_the_files_of_grids_are_all_tables() -> None:
    assert {path.name for path in GRIDS.iterdir() if path.suffix == ".toml"} == {f"{n}.toml" for n in TABLES}
    assert slug("POSTER++") != slug("POSTER") and slug("K = 10") == "k-10" and slug("0.1 %") == "0.1"


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["accuracy", "ferplus", "last", "1 2", "a^b", "."]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "figure", "set", "data", "published", "recipe", "notes", "missing", "x"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
KEYS = ["title", "source", "epoch", "data", "recipe", "set", "notes", "remarks"]
TOP = st.dictionaries(st.sampled_from([*KEYS, "figures", "conditions", "rows", "y"]), VALUES, max_size=9)


@settings(max_examples=300, deadline=None)
@given(values=TOP, whole=st.booleans())
def test_any_tables_are_a_grid_or_are_refused_in_one_line(values: dict[str, object], whole: bool) -> None:
    try:
        parse_grid({**tomllib.loads(GRID), **values} if whole else values, Path("g.toml"))
    except RecipeError as error:
        assert "\n" not in str(error)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=40), at=st.integers(0, len(GRID)), length=st.integers(0, 30))
def test_any_text_is_a_grid_or_is_refused_in_one_line(
    text: str, at: int, length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(GRID[:at] + text + GRID[at + length :], encoding="utf-8", errors="replace")
    try:
        load_grid(str(path))
    except RecipeError as error:
        assert "\n" not in str(error)
