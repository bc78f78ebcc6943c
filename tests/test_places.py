"""Where nothing can be written: every command that works for minutes says so before it reads a face."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

import cli
from edge_fer.errors import InputError
from edge_fer.output import check_place

RECIPE = "training/recipes/grefel-lite-s.toml"
CHECKPOINT = "training/weights/grefel-lite-s.safetensors"
COMMANDS = {
    "calibrate": ("calibrate", "{data}", "--output", "{place}/m.json"),
    "evaluate": ("evaluate", CHECKPOINT, "--data", "{data}", "--output", "{place}"),
    "export": (
        "export",
        CHECKPOINT,
        "--target",
        "onnx",
        "--parity-data",
        "{data}",
        "--output",
        "{place}/x.fer",
    ),
    "parity": ("parity", "grefel-lite", "--data", "{data}", "--output", "{place}"),
    "sweep": ("sweep", "comparison", "--data", "ferplus=ferplus:{data}", "--output", "{place}"),
    "train": ("train", "--recipe", "{recipe}", "--data", "ferplus:{data}", "--output", "{place}"),
}


def run(name: str, place: Path, tmp_path: Path) -> str:
    """Run a command on data that do not exist; return the only line it says."""
    recipe = tmp_path / "recipe.toml"
    text = Path(RECIPE).read_text()
    recipe.write_text(text.partition("[distillation]")[0])  # no teachers
    words = [word.format(data=tmp_path / "none", place=place, recipe=recipe) for word in COMMANDS[name]]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 1 and done.stdout == ""
    [line] = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_above_the_place(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    line = run(name, tmp_path / "file" / "out", tmp_path)
    assert "cannot be written" in line and f"{tmp_path / 'file'} is a file; name another place" in line


@pytest.mark.parametrize("name", COMMANDS)
def test_a_read_only_place(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing is read-only for the superuser.
    monkeypatch.setattr(os, "access", lambda _, mode: mode == os.R_OK)
    line = run(name, tmp_path / "out", tmp_path)
    assert "cannot be written" in line and f"{tmp_path} is read-only; name another place" in line


@pytest.mark.parametrize("name", ["evaluate", "parity", "sweep", "train"])
def test_a_file_in_place_of_a_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    line = run(name, tmp_path / "file", tmp_path)
    assert str(tmp_path / "file") in line and "Errno" not in line


def test_a_new_folder_below_another_is_a_place(tmp_path: Path) -> None:
    check_place(tmp_path / "a" / "b" / "c.json")
    check_place(Path("c.json"))
    with pytest.raises(InputError, match="is a file; name another place"):
        check_place(Path(__file__) / "c.json")
