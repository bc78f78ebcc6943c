"""The page of a sweep against pages made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomllib

from training.sweeps.figures import write_figure
from training.sweeps.grid import Grid, parse_grid
from training.sweeps.outcome import Outcome
from training.sweeps.table import Page, Trained, escape, render

GRID = """
title = "Losses | on <faces>"
source = "A paper, Table 3"
epoch = "best"
data = "faces"
recipe = "r"
remarks = ["Said of all."]
[notes]
odd = "Cannot be."
order = "The first in the table, though second in the file."
[[figures]]
name = "Accuracy"
figure = "accuracy"
[[figures]]
name = "F1"
figure = "macro_f1"
[[figures]]
name = "FLOPs"
[[rows]]
name = "one"
published = "68.15 0.632^order 8.4G"
[[rows]]
name = "two"
published = "70.00^odd^order - ."
notes = ["odd"]
[[rows]]
name = "three"
published = "1.0 2.0 3.0"
missing = "no code"
[[rows]]
name = "four"
"""
PAGE = """# Losses \\| on \\<faces\\>

Published: A paper, Table 3. The paper reports the best epoch on its test faces: see the second table, too.

Said of all.

## Last epoch

| | | Accuracy | F1 | FLOPs |
|---|---|---:|---:|---:|
| one | published | 68.15 | 0.632 [1] | 8.4G |
|  | ours | 60.00 ± 14.14 | 0.500 ± 0.141 |  |
| two [2] | published | 70.00 [2, 1] | – |  |
|  | ours |  |  |  |
| three | published | 1.0 | 2.0 | 3.0 |
| four | ours | 25.00 | 0.250 |  |

Ours: validation faces, in per cent but for F1, ECE, NLL and counts; several seeds: mean ± sample standard \
deviation. Empty: not trained (yet). "–": the paper has no figure there. [n]: a note below.

Not trained:

* three: no code

1. The first in the table, though second in the file.
2. Cannot be.

## Best epoch by accuracy on the validation faces

| | | Accuracy | F1 | FLOPs |
|---|---|---:|---:|---:|
| one | published | 68.15 | 0.632 | 8.4G |
|  | ours | 75.00 ± 7.07 | 0.600 ± 0.071 |  |
| two | published | 70.00 | – |  |
|  | ours |  |  |  |
| three | published | 1.0 | 2.0 | 3.0 |
| four | ours | 26.00 | 0.260 |  |

## Failed

* two: the loss is not finite

## Runs

| run | seeds | epochs | training faces seen | minutes | parameters |
|---|---:|---:|---:|---:|---:|
| one | 2 | 3.0 ± 1.4 | 1,500 | 1.5 | 1.50M |
| four | 1 | 4 | 2,000 | 2.0 | 1.50M |

* a machine
* another one
"""


def grid(text: str = GRID) -> Grid:
    return parse_grid(tomllib.loads(text), Path("losses.toml"))


def outcome(last: tuple[float, float], best: tuple[float, float], epochs: float, machine: str) -> Outcome:
    """Make an outcome from accuracy and F1 of its last and of its best epoch."""
    counts = {"epochs": epochs, "parameters": 1.5e6}
    return Outcome(
        last={"accuracy": last[0], "macro_f1": last[1], **counts},
        best={"accuracy": best[0], "macro_f1": best[1], **counts},
        faces=int(500 * epochs),
        minutes=epochs / 2,
        machine=machine,
    )


def trained(of: Grid) -> list[Trained]:
    outcomes = {
        "one": (
            outcome((0.5, 0.4), (0.7, 0.55), 2, "a machine"),
            outcome((0.7, 0.6), (0.8, 0.65), 4, "another one"),
        ),
        "two": (Outcome(failed="the loss is not finite"),),
        "four": (outcome((0.25, 0.25), (0.26, 0.26), 4, "a machine"),),
    }
    return [
        Trained(row=row, condition=of.conditions[0], name=row.name, outcomes=outcomes[row.name])
        for row in of.rows
        if row.missing is None
    ]


def test_a_page_is_the_one_made_by_hand() -> None:
    made = render(Page(grid=grid(), trained=trained(grid())))
    assert made.splitlines() == PAGE.splitlines()


def test_a_page_of_data_that_are_not_here_shows_what_was_published_alone() -> None:
    cells = [
        Trained(row=row, condition=grid().conditions[0], name=row.name, outcomes=())
        for row in grid().rows
        if row.missing is None
    ]
    page = render(Page(grid=grid(), trained=cells, absent=("faces",)))
    assert "ours |" not in page and "* all of faces: the data were not given" in page
    assert "| one | published | 68.15 | 0.632 [1] | 8.4G |" in page
    assert "Best epoch" not in page and "## Runs" not in page and "## Failed" not in page


def test_our_best_epoch_does_not_stand_beside_a_published_last_one() -> None:
    of = grid(GRID.replace('epoch = "best"', 'epoch = "last"'))
    first, _, second = render(Page(grid=of, trained=trained(of))).partition("## Best epoch")
    assert "The paper reports the last epoch." in first
    assert "| one | published | 68.15" in first and "published" not in second
    assert "| one | ours | 75.00 ± 7.07 |" in second


@pytest.mark.parametrize(
    ("name", "values", "text"),
    [
        ("accuracy", [], ""),
        ("accuracy", [0.81234], "81.23"),
        ("recall.fear", [0.0, 1.0], "50.00 ± 70.71"),
        ("mean_recall", [float("nan")], ""),
        ("mean_recall", [float("nan"), 0.5], "50.00"),
        ("ece", [0.1234], "0.123"),
        ("nll", [1.0, 2.0, 3.0], "2.000 ± 1.000"),
        ("epochs", [12.0, 12.0], "12"),
        ("epochs", [12.0, 13.0], "12.5 ± 0.7"),
        ("epochs", [12.34], "12.3"),
        ("parameters", [43_837_000.0] * 2, "43.84M"),
        ("anchors_used", [0.125], "12.50"),
    ],
)
def test_figures_are_written_in_their_units(name: str, values: list[float], text: str) -> None:
    assert write_figure(name, values) == text


def test_nothing_in_a_name_is_markdown() -> None:
    assert escape("a|b*c_d`e<f>[g]\\") == "a\\|b\\*c\\_d\\`e\\<f\\>\\[g\\]\\\\"
