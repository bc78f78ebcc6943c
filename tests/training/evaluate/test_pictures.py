"""What the pictures show, read from the figures before they become PNG files."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import rc_context

from tests.training.evaluate.conftest import write_network
from training.evaluate.answers import Answers
from training.evaluate.attention import attend, attention_map
from training.evaluate.document import Beside
from training.evaluate.faces import LabelledFaces, read_faces
from training.evaluate.figures import balancing_figures, class_rows
from training.evaluate.history import Curves, History
from training.evaluate.pictures.balancing import example_rows
from training.evaluate.pictures.confusion import draw_confusion
from training.evaluate.pictures.curves import draw_losses, draw_validation
from training.evaluate.pictures.embeddings import draw_embeddings
from training.evaluate.pictures.latent import draw_latent
from training.evaluate.pictures.recall import draw_recall
from training.evaluate.pictures.style import STYLE
from training.evaluate.projection import Projection
from training.evaluate.results import Result, Source
from training.evaluate.table import faces_csv
from training.models.checkpoint import load_checkpoint

PER_CLASS, FACES = 6, 18
CHANCE = np.random.default_rng(11)
BEFORE, AFTER = (CHANCE.dirichlet(np.full(3, 0.5), FACES).astype(np.float32) for _ in range(2))


@pytest.fixture
def faces(noise_data: Path, tmp_path: Path) -> LabelledFaces:
    loaded = load_checkpoint(write_network(tmp_path / "for-the-crop.safetensors", 0))
    return read_faces(str(noise_data / "valid"), loaded.crop, loaded.network.spec.labels)


def make(folder: Path, faces: LabelledFaces, *, head: str = "balanced", name: str = "checkpoint") -> Result:
    """A result whose answers are made up; the network is a real one."""
    path = write_network(folder / f"{name}-{head}.safetensors", 3, head=head)
    balanced = head == "balanced"
    answers = Answers(
        probabilities=AFTER,
        primary=BEFORE if balanced else AFTER,
        reliability=AFTER.max(axis=1),
        primary_reliability=BEFORE.max(axis=1),
        embedding=CHANCE.normal(size=(FACES, 5)).astype(np.float32),
        correction_weight=np.full(FACES, 0.4 if balanced else 0.0, dtype=np.float32),
        anchor_weight=np.full(FACES, 0.5 if balanced else 0.0, dtype=np.float32),
        nearest=None,
    )
    figures: dict[str, Any] = {
        "per_class": class_rows(AFTER, faces.numbers, faces.labels),
        "primary_per_class": class_rows(answers.primary, faces.numbers, faces.labels),
        "balancing": balancing_figures(answers, faces.numbers) if balanced else None,
    }
    return Result(Source(name, path, load_checkpoint(path)), faces, answers, figures, None)


def texts(axes: Any) -> dict[tuple[int, int], str]:
    """Return what stands in the cells of a matrix, by row and column."""
    return {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in axes.texts}


def test_confusion_is_counted_without_and_with_balancing(faces: LabelledFaces, tmp_path: Path) -> None:
    with rc_context(STYLE):
        figure = draw_confusion(make(tmp_path, faces))
        alone = draw_confusion(make(tmp_path, faces, head="linear"))
    assert len(figure.axes) == 2 and len(alone.axes) == 1
    for axes, title, rows in zip(figure.axes, ("without", "with"), (BEFORE, AFTER), strict=True):
        assert axes.get_title(loc="left").startswith(title + " balancing")
        cells = texts(axes)
        for label in range(3):
            for predicted in range(3):
                count = int(((faces.numbers == label) & (rows.argmax(axis=1) == predicted)).sum())
                expected = f"{count}\n{100 * count / PER_CLASS:.0f}" if count else None
                assert cells.get((label, predicted)) == expected


def test_recall_stands_beside_that_before_balancing_and_of_the_other_run(
    faces: LabelledFaces, tmp_path: Path
) -> None:
    other = class_rows(BEFORE[::-1], faces.numbers, faces.labels)
    beside = Beside(tmp_path / "other", ({"name": "best", "per_class": other}, {"name": "last"}))
    result = make(tmp_path, faces)
    with rc_context(STYLE):
        figure = draw_recall([result], beside)
    series = (result.figures["primary_per_class"], result.figures["per_class"], other)
    for axes, key in zip(figure.axes, ("recall", "error_share"), strict=True):
        widths = np.reshape([bar.get_width() for bar in axes.patches], (3, 3))
        np.testing.assert_allclose(widths, [[row[key] for row in rows] for rows in series])  # type: ignore[attr-defined]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["primary", "probabilities", "beside, other: best"]


def test_examples_are_those_that_balancing_moved_most(faces: LabelledFaces, tmp_path: Path) -> None:
    result = make(tmp_path, faces)
    middle = (BEFORE.astype(float) + AFTER) / 2
    moved = sum(
        0.5 * (p * np.log(p / middle)).sum(axis=1) for p in (BEFORE.astype(float), AFTER.astype(float))
    )
    was, now = (rows.argmax(axis=1) == faces.numbers for rows in (BEFORE, AFTER))
    kinds = {"put right": ~was & now, "put wrong": was & ~now, "stays right": was & now}
    found = example_rows(result)
    assert set(found) == {*kinds, "stays wrong"}
    for name, chosen in {**kinds, "stays wrong": ~was & ~now}.items():
        rows = np.flatnonzero(chosen)
        assert found[name].tolist() == rows[np.argsort(-moved[rows])][:4].tolist()
    assert sum(map(len, found.values())) > 8


def test_attention_is_that_of_the_surest_right_and_wrong_faces_for_the_label_given(
    faces: LabelledFaces, tmp_path: Path
) -> None:
    result = make(tmp_path, faces, head="linear")
    found = attend(result)
    assert found is not None and attend(make(tmp_path, faces)) is None
    top, sure = AFTER.argmax(axis=1), AFTER.max(axis=1)
    for label, shown in found.items():
        own = [row for row in np.argsort(-sure) if faces.numbers[row] == label]
        right = [row for row in own if top[row] == label][:2]
        wrong = [row for row in own if top[row] != label][:2]
        assert [face.row for face in shown] == right + wrong
        assert [face.predicted for face in shown] == top[right + wrong].tolist()
    network, row = result.network, found[1][-1].row
    face = faces.tensors.crops[row].permute(2, 0, 1).float()[None] / 127.5 - 1.0
    with torch.inference_mode():
        logits = network(face).logits[0] - network.head.linear.bias  # type: ignore[operator, union-attr]
    for label in range(3):
        one = attention_map(result, row, label)
        assert one.shape == (32, 32)
        # Bilinear enlargement of an even map keeps its mean.
        assert one.mean() == pytest.approx(logits[label].item(), rel=0.02, abs=0.02)


def test_the_best_epoch_is_marked_and_every_term_is_drawn() -> None:
    train = Curves([0, 0], [1, 2], {"total": [3.0, 2.0], "anchor": [-1.0, -2.0]})
    validation = Curves([0, 1, 2], [4, 8, 12], {"accuracy": [0.3, 0.6, 0.5], "ece": [0.1, 0.2, 0.3]})
    history = History(train, validation)
    with rc_context(STYLE):
        losses, epochs = draw_losses(history), draw_validation(history)
    assert losses is not None and epochs is not None
    drawn = {axes.get_title(loc="left"): axes.lines[0].get_xydata() for axes in losses.axes if axes.lines}
    assert {name: np.asarray(line).tolist() for name, line in drawn.items()} == {
        "total: 2 at the end": [[1, 3.0], [2, 2.0]],
        "anchor: -2 at the end": [[1, -1.0], [2, -2.0]],
    }
    marks = [axes.lines[1].get_xdata() for axes in epochs.axes if len(axes.lines) > 1]
    assert np.asarray(marks).tolist() == [[8, 8], [8, 8]]
    assert "dashed: best accuracy, epoch 1" in [text.get_text() for text in epochs.texts]


def test_embeddings_are_coloured_by_their_own_label(faces: LabelledFaces, tmp_path: Path) -> None:
    rows = np.array([0, 1, 2, 3, 6, 7, 12])  # 4, 2 and 1 faces of the three folders
    places = np.stack([faces.numbers[rows], rows], axis=1).astype(np.float32)
    plane = {"dimensions": 5, "davies_bouldin": 1.0, "calinski_harabasz": 2.0, "faces": len(rows)}
    result = make(tmp_path, faces)
    result.figures["clusters"] = {"embeddings": plane, "tsne": plane}
    with rc_context(STYLE):
        figure = draw_embeddings([replace(result, projection=Projection(rows, places, 5.0))])
    assert figure is not None
    for points in figure.axes[0].collections:
        name, count = str(points.get_label()).rsplit(" ", 1)
        found = np.asarray(points.get_offsets())
        assert len(found) == int(count)
        assert set(found[:, 0].astype(int)) == {faces.labels.index(name)}


def test_a_face_has_its_divergence_from_the_votes_and_both_answers(
    faces: LabelledFaces, tmp_path: Path
) -> None:
    votes = torch.tensor([[8.0, 1.0, 1.0]]).repeat(FACES, 1)
    voted = replace(faces, tensors=replace(faces.tensors, votes=votes))
    rows = list(csv.DictReader(io.StringIO(faces_csv([replace(make(tmp_path, faces), faces=voted)]))))
    q = np.array([0.8, 0.1, 0.1])
    divergence = ((AFTER - q) * np.log(np.maximum(AFTER, 1e-9) / q)).sum(axis=1)
    np.testing.assert_allclose([float(row["jeffreys"]) for row in rows], divergence, rtol=1e-2)
    for column, answers in (("prediction", AFTER), ("primary_prediction", BEFORE)):
        assert [row[column] for row in rows] == [faces.labels[top] for top in answers.argmax(axis=1)]
    deviations = [float(row["primary_deviation"]) for row in rows]
    np.testing.assert_allclose(deviations, BEFORE.std(axis=1), rtol=1e-4)


def test_what_dmue_mined_is_a_row_per_class() -> None:
    mined = [
        {"label": "neutral", "faces": 3, "mean": [0.0, 0.7, 0.3]},
        {"label": "happiness", "faces": 4, "mean": [0.2, 0.0, 0.8]},
        {"label": "surprise", "faces": 5, "mean": [0.6, 0.4, 0.0]},
    ]
    planted = {"faces": 2, "share": 0.1, "auroc": 0.875, "share_found": 0.5}
    with rc_context(STYLE):
        figure = draw_latent({"latent": "average", "mined": mined, "planted": planted})
    assert figure is not None and draw_latent(None) is None
    cells = texts(figure.axes[0])
    assert [cells[row, column] for row in range(3) for column in range(3)] == [
        f"{share:.2f}"
        for one in mined
        for share in one["mean"]  # type: ignore[attr-defined]
    ]
    title = figure.axes[0].get_title(loc="left")
    assert "2 planted wrong labels (10%)" in title and "0.875" in title and "50%" in title
    assert "LD-A" in figure.get_suptitle()
