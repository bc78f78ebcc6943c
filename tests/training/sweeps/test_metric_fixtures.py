"""The project's metrics recompute every mean and overall accuracy that RAC + RSL Tables 1-7 print.

A printed row says how many faces of every class were right; labels and predictions with these counts are made
here, and what the code says of them has to be what the paper printed in its last columns.
"""

from __future__ import annotations

import numpy as np
import pytest

from edge_fer.labels import LABELS
from edge_fer.parity import metrics
from training.sweeps.grid import Row, load_grid

RAF_DB = {
    "surprise": 329,
    "fear": 74,
    "disgust": 160,
    "happiness": 1185,
    "sadness": 478,
    "anger": 162,
    "neutral": 680,
}
FERPLUS = {
    "neutral": 1090,
    "happiness": 893,
    "surprise": 396,
    "sadness": 384,
    "anger": 273,
    "fear": 83,
    "disgust": 18,
}
AFFECTNET = dict.fromkeys(LABELS, 500)
COUNTS = {1: RAF_DB, 2: AFFECTNET, 3: RAF_DB, 4: FERPLUS, 5: RAF_DB, 6: RAF_DB, 7: RAF_DB}
ROWS = {1: 9, 2: 10, 3: 12, 4: 12, 5: 8, 6: 4, 7: 3}
COPIES = 100  # of every test face: recalls that were rounded are then counts to within 0.007 points


def rows() -> list[tuple[int, Row]]:
    return [(table, row) for table in COUNTS for row in load_grid(f"rac-rsl-table-{table}").rows]


def printed(table: int, row: Row) -> tuple[dict[str, float], dict[str, float]]:
    """Return the printed recalls by class, and the other figures by name, in per cent."""
    figures = load_grid(f"rac-rsl-table-{table}").figures
    cells = {
        figure.figure: float(cell.text)
        for figure, cell in zip(figures, row.published, strict=True)
        if cell.text != "."
    }
    recalls = {name[7:]: value for name, value in cells.items() if name.startswith("recall.")}
    return recalls, {name: value for name, value in cells.items() if not name.startswith("recall.")}


def faces(counts: dict[str, int], right: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return one-hot answers (N, C) and labels (N,) with so many right; the others get the next class."""
    labels, answers = [], []
    for number, (name, correct) in enumerate(right.items()):
        labels.append(np.full(counts[name], number))
        wrong = np.full(counts[name] - correct, (number + 1) % len(right))
        answers.append(np.concatenate([np.full(correct, number), wrong]))
    return np.eye(len(right), dtype=np.float32)[np.concatenate(answers)], np.concatenate(labels)


def test_all_rows_are_here() -> None:
    assert {t: len(load_grid(f"rac-rsl-table-{t}").rows) for t in COUNTS} == ROWS
    assert sum(RAF_DB.values()) == 3068 and sum(FERPLUS.values()) == 3137


@pytest.mark.parametrize(("table", "row"), rows(), ids=lambda value: getattr(value, "name", str(value)))
def test_the_printed_means_and_overall_accuracies_are_recomputed(table: int, row: Row) -> None:
    recalls, figures = printed(table, row)
    counts = {name: COPIES * COUNTS[table][name] for name in recalls}
    right = {name: round(recall / 100.0 * counts[name]) for name, recall in recalls.items()}
    answers, labels = faces(counts, right)
    assert 100.0 * metrics.mean_recall(answers, labels) == pytest.approx(figures.pop("mean_recall"), abs=0.01)
    recomputed = 100.0 * metrics.recall_per_class(answers, labels)
    np.testing.assert_allclose(recomputed, list(recalls.values()), atol=0.01)
    if table != 2:  # which prints none; its test set is balanced
        assert 100.0 * metrics.accuracy(answers, labels) == pytest.approx(figures.pop("accuracy"), abs=0.01)
    assert not figures


@pytest.mark.parametrize("table", [1, 3, 4, 5, 6, 7])
def test_cells_that_no_count_of_faces_gives_are_footnoted(table: int) -> None:
    impossible = set()
    for row in load_grid(f"rac-rsl-table-{table}").rows:
        for name, recall in printed(table, row)[0].items():
            count = COUNTS[table][name]
            if abs(100.0 * round(recall / 100.0 * count) / count - recall) > 0.005 + 1e-9:
                impossible.add((row.name, name))
    noted = {
        (row.name, figure.figure[7:])
        for row in load_grid(f"rac-rsl-table-{table}").rows
        for figure, cell in zip(load_grid(f"rac-rsl-table-{table}").figures, row.published, strict=True)
        if {"impossible", "halves"} & set(cell.notes)
    }
    assert {cell for cell in impossible if cell[0] != "PT"} == noted  # PT rounds them all and says so
    assert noted or table == 3


def test_odd_tenths_of_five_hundred_faces_are_footnoted() -> None:
    for row in load_grid("rac-rsl-table-2").rows:
        for cell in row.published[:-1]:
            if cell.text != ".":
                assert ("fifths" in cell.notes) == (round(float(cell.text) * 500) % 100 != 0), cell


@pytest.mark.parametrize("table", [1, 4])
def test_a_wrong_face_count_is_seen(table: int) -> None:
    recalls, figures = printed(table, load_grid(f"rac-rsl-table-{table}").rows[0])
    counts = dict.fromkeys(recalls, COPIES * 100)
    answers, labels = faces(counts, {name: round(recall * COPIES) for name, recall in recalls.items()})
    assert abs(100.0 * metrics.accuracy(answers, labels) - figures["accuracy"]) > 1.0
