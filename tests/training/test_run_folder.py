"""Where a run may begin or go on: one run to a folder, nothing of an earlier one lost, damage named."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from edge_fer.errors import EdgeFerError, TrainingError
from tests.training.tiny_run import tiny_run
from training import session
from training.run import RunFolder, held
from training.session import TrainOptions, train_run
from training.summary import read_lines


@pytest.fixture(scope="module")
def finished(noise_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainOptions:
    """A whole run."""
    options = tiny_run(tmp_path_factory.mktemp("finished"), noise_data)
    train_run(options)
    return options


@pytest.fixture
def again(finished: TrainOptions, tmp_path: Path) -> TrainOptions:
    """What resumes a copy of the whole run."""
    shutil.copytree(finished.output, tmp_path / "again")
    return replace(finished, output=tmp_path / "again", resume=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(options: TrainOptions) -> str:
    """Return the one line with which a run is refused."""
    with pytest.raises(EdgeFerError) as error:
        train_run(options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_faces_of_one_class_are_refused(noise_data: Path, tmp_path: Path) -> None:
    for split in ("train", "valid"):
        shutil.copytree(noise_data / split / "neutral", tmp_path / split / "neutral")
    run = tiny_run(tmp_path, tmp_path)
    assert "two classes or more, got none of happiness, surprise" in refusal(run)
    assert not run.output.exists()


def test_a_class_without_training_faces_is_named(
    noise_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(noise_data, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "train" / "surprise")
    train_run(tiny_run(tmp_path, tmp_path / "data"))
    assert "no training faces of surprise\n" in capsys.readouterr().err


def test_a_place_that_is_no_folder_is_refused(noise_data: Path, tmp_path: Path) -> None:
    run = tiny_run(tmp_path, noise_data)
    file, loop = tmp_path / "file", tmp_path / "loop"
    file.write_text("x", encoding="utf-8")
    loop.symlink_to(loop)
    for place, said in ((file, "something else"), (loop, "something else"), (file / "x", "is a file")):
        text = refusal(replace(run, output=place))
        assert said in text and "name another " in text, text
    assert file.read_text(encoding="utf-8") == "x"


def test_names_that_are_no_text_are_refused(noise_data: Path, tmp_path: Path) -> None:
    strange = tmp_path / os.fsdecode(b"\xff")
    shutil.copytree(noise_data, strange)
    run = tiny_run(tmp_path, noise_data)
    for given in (replace(run, data=str(strange)), replace(run, output=strange / "run")):
        assert "expected a name in UTF-8" in refusal(given)
        assert not given.output.exists()


def test_what_a_kill_in_the_first_write_left_is_no_run(noise_data: Path, tmp_path: Path) -> None:
    run = tiny_run(tmp_path, noise_data)
    part = run.output / ".recipe.json.part"
    run.output.mkdir()
    part.write_bytes(b"{")
    train_run(run)
    assert not part.exists() and RunFolder(run.output).best.is_file()


def test_a_folder_has_one_run_at_a_time(again: TrainOptions, tmp_path: Path) -> None:
    new = replace(again, output=tmp_path / "new", resume=False)
    for options in (new, again):
        with held(options.output):
            before = contents(options.output)
            assert "another process is at work here" in refusal(options)
            assert contents(options.output) == before
    train_run(new)  # what was held is free again


def test_a_folder_that_another_run_took_meanwhile_is_left_alone(
    noise_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, load = tiny_run(tmp_path, noise_data), session.load_splits

    def slow(*arguments: Any) -> Any:
        run.output.mkdir()
        (run.output / "recipe.json").write_text("another's", encoding="utf-8")
        return load(*arguments)

    monkeypatch.setattr(session, "load_splits", slow)
    assert "expected a new or empty folder" in refusal(run)
    assert contents(run.output) == {"recipe.json": b"another's"}


@pytest.mark.parametrize("name", ["state", "best", "last", "metrics"])
def test_a_run_that_lacks_something_is_not_begun_anew(name: str, again: TrainOptions) -> None:
    file: Path = getattr(RunFolder(again.output), name)
    file.unlink()
    before = contents(again.output)
    assert str(file) in refusal(again)
    assert contents(again.output) == before


def test_a_damaged_recipe_is_another_one(again: TrainOptions) -> None:
    RunFolder(again.output).recipe.write_bytes(b"\xff")
    assert "began with another recipe" in refusal(again)


@pytest.mark.parametrize("damage", ["tensor", "step"])
def test_a_state_that_does_not_fit_is_refused(damage: str, again: TrainOptions) -> None:
    state = RunFolder(again.output).state
    tensors = load_file(state)
    with safe_open(state, "pt") as file:
        progress = json.loads(file.metadata()["progress"])
    if damage == "tensor":
        del tensors["model.head.primary.0.weight"]
    else:
        progress["step"] = "7"
    save_file(tensors, state, metadata={"progress": json.dumps(progress)})
    before = contents(again.output)
    text = refusal(again)
    assert str(state) in text and text.endswith("train into another --output")
    assert contents(again.output) == before


def test_a_run_goes_on_with_the_faces_it_began_with(
    finished: TrainOptions, noise_data: Path, tmp_path: Path
) -> None:
    shutil.copytree(noise_data, tmp_path / "data")
    run = replace(finished, data=str(tmp_path / "data"), output=tmp_path / "run")
    train_run(run)
    picture = tmp_path / "data" / "valid" / "neutral" / "00.png"
    picture.rename(picture.parents[1] / "surprise" / "neutral.png")
    before = contents(run.output)
    assert "this run began with other faces or labels" in refusal(replace(run, resume=True))
    assert contents(run.output) == before


def test_lessons_are_those_of_the_faces(finished: TrainOptions, tmp_path: Path) -> None:
    run = tiny_run(tmp_path, Path(finished.data), distillation={"share": 0.5})
    run = replace(run, teachers=(RunFolder(finished.output).last,))
    train_run(run)
    lessons = RunFolder(run.output).lessons
    tensors = load_file(lessons)
    for wrong in ({name: tensor[1:] for name, tensor in tensors.items()}, {"embeddings": torch.zeros(72, 2)}):
        save_file(wrong, lessons)
        text = refusal(replace(run, resume=True))
        assert f"{lessons}: expected what the teachers said of the 72 training faces" in text


def test_lines_about_machines_are_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    folder.note_environment({"start": 1})
    before = folder.environment.read_bytes()

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        folder.note_environment({"start": 2})
    assert folder.environment.read_bytes() == before
    folder.environment.write_bytes(before[:-4])
    with pytest.raises(TrainingError, match=r"environment.jsonl: expected lines of JSON"):
        read_lines(folder.environment)
