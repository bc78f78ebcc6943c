"""What `evaluate` writes, against scikit-learn on answers that the test computes itself."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import (
    balanced_accuracy_score,
    calinski_harabasz_score,
    confusion_matrix,
    davies_bouldin_score,
    f1_score,
    log_loss,
)
from typer.testing import Result

from tests.training.evaluate.conftest import evaluate, write_network
from training.models import HeadOutput
from training.models.checkpoint import load_checkpoint

Evaluated = Callable[[], tuple[Path, Result]]
NAMES = ("neutral", "happiness", "surprise")


def read(folder: Path) -> Any:
    return json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))


def read_crops(data: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read the faces with Pillow, in the order of the reader: folders by name, files by name."""
    files = [path for name in sorted(NAMES) for path in sorted((data / name).iterdir())]
    crops = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in files])
    return crops, np.array([NAMES.index(path.parent.name) for path in files])


def ask(path: Path, crops: NDArray[np.uint8]) -> HeadOutput:
    network = load_checkpoint(path).network
    images = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255.0
    with torch.inference_mode():
        return network((images - 0.5) / 0.5)


@pytest.mark.parametrize("name", ["best", "last"])
def test_the_figures_of_both_checkpoints_are_those_of_scikit_learn(
    evaluated: Evaluated, run_folder: Path, noise_data: Path, name: str
) -> None:
    folder, said = evaluated()
    assert said.exit_code == 0, said.output
    assert said.stdout.splitlines()[-1] == str(folder)
    document = read(folder)
    found = {one["name"]: one for one in document["checkpoints"]}[name]
    file = run_folder / f"{name}.safetensors"
    assert found["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert found["epoch"] == {"best": 0, "last": 1}[name]
    crops, labels = read_crops(noise_data / "valid")
    output = ask(file, crops)
    for key in ("probabilities", "primary"):
        p = getattr(output, key).numpy().astype(np.float64)
        top = p.argmax(axis=1)
        scores = found[key]
        assert scores["confusion"] == confusion_matrix(labels, top, labels=range(3)).tolist()
        assert scores["accuracy"] == pytest.approx((top == labels).mean())
        assert scores["mean_recall"] == pytest.approx(balanced_accuracy_score(labels, top))
        assert scores["macro_f1"] == pytest.approx(f1_score(labels, top, average="macro"))
        assert scores["nll"] == pytest.approx(log_loss(labels, p, labels=range(3)), abs=1e-5)
        assert scores["brier"] == pytest.approx(np.square(p - np.eye(3)[labels]).sum(1).mean(), abs=1e-5)
        entropy = -(p * np.log(np.maximum(p, 1e-12))).sum(axis=1) / np.log(3)
        surest = np.argsort(entropy, kind="stable")
        wrong = np.cumsum((top != labels)[surest])
        assert scores["aurc"] == pytest.approx((wrong / np.arange(1, len(wrong) + 1)).mean(), abs=1e-6)
        assert scores["reliability_mean"] == pytest.approx(1 - entropy.mean(), abs=1e-5)
    was, now = (getattr(output, key).numpy().argmax(1) == labels for key in ("primary", "probabilities"))
    balancing = found["balancing"]
    assert balancing["gain"] == pytest.approx(now.mean() - was.mean())
    assert (balancing["to_right"], balancing["to_wrong"]) == ((now & ~was).sum(), (was & ~now).sum())
    assert balancing["gain_interval"][0] < balancing["gain"] < balancing["gain_interval"][1]
    assert balancing["correction_weight"] == pytest.approx(output.correction_weight.mean().item(), abs=1e-5)
    assert balancing["anchor_weight"] == pytest.approx(output.anchor_weight.mean().item(), abs=1e-5)
    assert balancing["primary"]["deviation_mean"] == pytest.approx(
        output.primary.std(dim=1, correction=0).mean().item(), abs=1e-5
    )
    embedding = output.embedding.numpy().astype(np.float64)
    clusters = found["clusters"]["embeddings"]
    assert clusters["davies_bouldin"] == pytest.approx(davies_bouldin_score(embedding, labels), rel=1e-4)
    assert clusters["calinski_harabasz"] == pytest.approx(
        calinski_harabasz_score(embedding, labels), rel=1e-3
    )
    assert found["clusters"]["tsne"]["dimensions"] == 2
    assert found["votes"] is None


def test_anchors_are_counted(evaluated: Evaluated, run_folder: Path, noise_data: Path) -> None:
    folder, _ = evaluated()
    crops, _ = read_crops(noise_data / "valid")
    path = run_folder / "best.safetensors"
    output, anchors = ask(path, crops), read(folder)["checkpoints"][0]["anchors"]
    assert output.distances is not None
    nearest = output.distances.flatten(1).argmin(dim=1).tolist()
    assert anchors["total"] == 30
    assert anchors["used"] == len(set(nearest))
    counts = [[nearest.count(10 * label + k) for k in range(10)] for label in range(3)]
    assert [row["nearest"] for row in anchors["per_class"]] == counts
    weights = load_checkpoint(path).network.head.anchor_correction.anchors.detach()  # type: ignore[union-attr]
    assert anchors["rms"] == pytest.approx(weights.square().mean().sqrt().item(), rel=1e-5)
    assert anchors["rms_max"] == pytest.approx(weights.square().mean(-1).sqrt().max().item(), rel=1e-5)
    assert anchors["embedding_rms"] == pytest.approx(output.embedding.square().mean().sqrt().item(), rel=1e-4)


def test_a_line_per_face_with_both_checkpoints_apart(
    evaluated: Evaluated, run_folder: Path, noise_data: Path
) -> None:
    folder, _ = evaluated()
    rows = list(csv.DictReader(io.StringIO((folder / "faces.csv").read_text(encoding="utf-8"))))
    crops, labels = read_crops(noise_data / "valid")
    assert [row["label"] for row in rows] == [NAMES[label] for label in labels]
    assert [row["hash"] for row in rows] == [hashlib.sha256(crop.tobytes()).hexdigest() for crop in crops]
    assert rows[0]["name"] == "happiness/00.png"
    for name in ("best", "last"):
        output = ask(run_folder / f"{name}.safetensors", crops)
        tops = output.probabilities.argmax(dim=1).tolist()
        assert [row[f"{name}_prediction"] for row in rows] == [NAMES[top] for top in tops]
        for column, label in enumerate(NAMES):
            texts = [float(row[f"{name}_primary_{label}"]) for row in rows]
            np.testing.assert_allclose(texts, output.primary[:, column], rtol=1e-4, atol=1e-5)
    assert [row["best_primary_surprise"] for row in rows] != [row["last_primary_surprise"] for row in rows]


def test_curves_are_the_lines_of_the_run(evaluated: Evaluated) -> None:
    folder, _ = evaluated()
    curves = read(folder)["curves"]
    assert curves["train"] == {
        "epoch": [0, 1],
        "step": [4, 12],
        "total": [1.5, 1.0],
        "classification": [1.25, None],
        "learning_rate": [0.1, None],
        "anchor": [None, -0.5],
    }
    assert curves["validation"] == {
        "epoch": [0, 1],
        "step": [8, 16],
        "accuracy": [0.5, 0.25],
        "ece": [0.25, 0.125],
    }


def test_pictures_are_whole_and_wide_enough(evaluated: Evaluated) -> None:
    folder, _ = evaluated()
    files = read(folder)["files"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*files, "evaluation.json"])
    assert {"confusion-best.png", "confusion-last.png", "risk-coverage.png", "losses.png"} < set(files)
    assert not [name for name in files if name.startswith("attention")]  # no linear head
    for name in files:
        if name.endswith(".png"):
            picture = Image.open(folder / name)
            picture.load()
            assert picture.width == 1200 and 300 <= picture.height <= 2400
            assert len(set(picture.convert("L").get_flattened_data())) > 10  # not blank


def test_a_file_alone_beside_the_run_and_then_another_in_its_place(
    evaluated: Evaluated, noise_data: Path, tmp_path: Path
) -> None:
    # Seen at another size, the faces are still the same.
    source = write_network(tmp_path / "linear.safetensors", 3, head="linear", size=40)
    other, _ = evaluated()
    output = tmp_path / "alone"
    said = evaluate(source, noise_data / "valid", output, "--beside", str(other), "--batch", "7")
    assert said.exit_code == 0, said.output
    document = read(output)
    (found,) = document["checkpoints"]
    assert found["name"] == "checkpoint" and found["balancing"] is None and found["anchors"] is None
    assert found["probabilities"] == found["primary"]
    assert document["curves"] is None
    before = read(other)["checkpoints"]
    assert [one["sha256"] for one in document["beside"]["checkpoints"]] == [one["sha256"] for one in before]
    for key in ("per_class", "probabilities"):
        assert document["beside"]["checkpoints"][0][key] == before[0][key]
    (printed,) = (line.split("│") for line in said.stderr.splitlines() if "NLL" in line)
    shown = [f"{one['probabilities']['nll']:.4f}" for one in (found, *before)]
    assert [cell.strip() for cell in printed[2:-1]] == shown and len(set(shown)) > 1
    wrong = np.array([row["errors"] for row in found["per_class"]])
    np.testing.assert_allclose([row["error_share"] for row in found["per_class"]], wrong / wrong.sum())
    assert "balancing.png" not in document["files"] and "attention.png" in document["files"]
    (output / "kept.txt").write_text("mine")
    again = evaluate(write_network(tmp_path / "b.safetensors", 4), noise_data / "valid", output)
    assert again.exit_code == 0, again.output
    names = {path.name for path in output.iterdir()}
    assert {"kept.txt", "balancing.png"} < names and "attention.png" not in names


def test_names_that_are_no_text_go_out_as_they_came(noise_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "neutral"
    folder.mkdir(parents=True)
    shutil.copy(noise_data / "valid" / "neutral" / "00.png", folder / os.fsdecode(b"\xff.png"))
    output = tmp_path / os.fsdecode(b"\xfe")
    result = evaluate(write_network(tmp_path / "a.safetensors", 0), folder.parent, output)
    assert result.exit_code == 0, result.stderr
    assert result.stdout_bytes == os.fsencode(output) + b"\n"
    assert b"neutral/\xff.png" in (output / "faces.csv").read_bytes()
