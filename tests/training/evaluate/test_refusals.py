"""What `evaluate` refuses: one line, exit code 1, and nothing written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import Result

from edge_fer.errors import InputError
from tests.training.evaluate.conftest import evaluate, write_network
from training.evaluate.faces import read_faces
from training.evaluate.history import read_history
from training.models.checkpoint import load_checkpoint


def refused(said: Result, output: Path, *words: str) -> None:
    lines = said.stderr.strip().splitlines()
    assert said.exit_code == 1
    assert lines[-1].startswith("error: ") and "internal error" not in lines[-1]
    assert all(word in lines[-1] for word in words), lines[-1]
    assert not [line for line in lines[:-1] if not line.startswith("note: ")]
    assert said.stdout == "" and not output.exists()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_network(tmp_path / "a.safetensors", 0)


def test_sources_that_are_none(run_folder: Path, noise_data: Path, checkpoint: Path, tmp_path: Path) -> None:
    output, data = tmp_path / "out", noise_data / "valid"
    refused(evaluate(tmp_path / "none", data, output), output, "no such run or checkpoint")
    half = tmp_path / "half"
    half.mkdir()
    shutil.copy(run_folder / "best.safetensors", half)
    refused(evaluate(half, data, output), output, "none of last.safetensors")
    write_network(half / "last.safetensors", 0, size=40)
    refused(evaluate(half, data, output), output, "not of one run")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(checkpoint.read_bytes()[:2000])
    refused(evaluate(broken, data, output), output, "broken.safetensors")


def test_weights_that_answer_with_no_numbers(noise_data: Path, checkpoint: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    tensors = load_file(checkpoint)
    tensors["head.primary.8.bias"][:] = float("nan")
    from training.models.checkpoint import save_checkpoint

    loaded.network.load_state_dict(tensors)
    save_checkpoint(checkpoint, loaded.network, loaded.crop, {})
    refused(
        evaluate(checkpoint, noise_data / "valid", tmp_path / "out"), tmp_path / "out", "18 of 18", "broken"
    )
    save_file(tensors, checkpoint)
    refused(evaluate(checkpoint, noise_data / "valid", tmp_path / "out"), tmp_path / "out", "format")


def test_data_that_do_not_fit(noise_data: Path, checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    listed = tmp_path / "faces.csv"
    picture = noise_data / "valid" / "neutral" / "00.png"
    listed.write_text(f"file,label\n{picture},\n", encoding="utf-8")
    refused(evaluate(checkpoint, listed, output), output, "expected a label for every face")
    listed.write_text(f"file,label\n{picture},anger\n", encoding="utf-8")
    refused(evaluate(checkpoint, listed, output), output, "classes neutral, happiness, surprise, got none")
    listed.write_text(f"file,label,label\n{picture},neutral,happiness\n", encoding="utf-8")
    refused(evaluate(checkpoint, listed, output), output, "columns of different names, got 'label' twice")
    refused(evaluate(checkpoint, tmp_path / "nothing", output), output, "no such file or folder")
    refused(evaluate(checkpoint, noise_data / "valid", output, "--device", "tpu"), output, "tpu")


def test_faces_of_other_classes_are_left_out_and_counted(noise_data: Path, tmp_path: Path) -> None:
    pictures = sorted((noise_data / "valid" / "surprise").iterdir())
    listed = tmp_path / "faces.csv"
    labels = ("neutral", "surprise", "anger", "contempt", "anger")
    lines = "".join(f"{p},{label}\n" for p, label in zip(pictures, labels, strict=False))
    listed.write_text("file,label\n" + lines, encoding="utf-8")
    spec = load_checkpoint(write_network(tmp_path / "a.safetensors", 0))
    faces = read_faces(str(listed), spec.crop, spec.network.spec.labels)
    assert faces.numbers.tolist() == [0, 2]
    assert "3 of 5 faces left out" in faces.note and "anger 2, contempt 1" in faces.note
    other = read_faces(str(listed), spec.crop, ("happiness", "contempt", "neutral"))  # by name, not by place
    assert other.numbers.tolist() == [2, 1]
    with pytest.raises(InputError, match="faces of the classes happiness, other, got none"):
        read_faces(str(listed), spec.crop, ("happiness", "other"))


def test_the_same_faces_are_known_by_pixels_and_labels(noise_data: Path, tmp_path: Path) -> None:
    crop = load_checkpoint(write_network(tmp_path / "a.safetensors", 0)).crop
    names = ("neutral", "happiness", "surprise")
    digest = read_faces(str(noise_data / "valid"), crop, names).digest
    moved = tmp_path / "moved"
    shutil.copytree(noise_data / "valid", moved)
    assert read_faces(str(moved), crop, names).digest == digest
    (moved / "neutral" / "00.png").rename(moved / "surprise" / "00-.png")
    assert read_faces(str(moved), crop, names).digest != digest
    (moved / "surprise" / "00-.png").rename(moved / "neutral" / "00.png")
    shutil.copy(moved / "neutral" / "01.png", moved / "neutral" / "00.png")
    assert read_faces(str(moved), crop, names).digest != digest


def test_an_evaluation_of_other_faces(
    evaluated: Callable[[], tuple[Path, Result]], noise_data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    output, (other, _) = tmp_path / "out", evaluated()
    said = evaluate(checkpoint, noise_data / "train", output, "--beside", str(other))
    refused(said, output, "expected an evaluation of the same 72 faces", "18")
    said = evaluate(checkpoint, noise_data / "valid", output, "--beside", str(tmp_path / "none"))
    refused(said, output, "name the folder of an evaluation")
    (tmp_path / "evaluation.json").write_text(json.dumps({"format": "other"}), encoding="utf-8")
    said = evaluate(checkpoint, noise_data / "valid", output, "--beside", str(tmp_path))
    refused(said, output, "edge-fer-evaluation-1")


def test_places_that_hold_something_else(noise_data: Path, checkpoint: Path, tmp_path: Path) -> None:
    said = evaluate(checkpoint, noise_data / "valid", tmp_path)
    assert said.exit_code == 1 and "earlier evaluation" in said.stderr
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]
    said = evaluate(checkpoint, noise_data / "valid", checkpoint)
    assert said.exit_code == 1 and "expected a folder" in said.stderr
    said = evaluate(checkpoint, noise_data / "valid", tmp_path / "out", "--batch", "0")
    assert said.exit_code == 2 and not (tmp_path / "out").exists()


def test_metrics_of_no_run(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_history(path) is None
    for text in ("no json\n", "[]\n", '{"kind": "other", "epoch": 0, "step": 1}\n', '{"kind": "train"}\n'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=r"metrics\.jsonl:1: expected a line of a run"):
            read_history(path)
