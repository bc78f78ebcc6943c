"""Real sweeps on noise: what is written, what is not trained twice, what is resumed, what fails alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

import cli
from edge_fer.errors import TrainingError
from edge_fer.parity import metrics
from tests.training.tiny_run import tiny_recipe, tiny_run
from training.evaluation import normalise
from training.loop import Trainer
from training.models.checkpoint import load_checkpoint
from training.run import RunFolder, held
from training.session import train_run
from training.sweeps import session
from training.sweeps.grids import grid_names
from training.sweeps.outcome import Outcome, collect

BASE = tiny_recipe(
    network={"model": "grefel-lite"}, optimiser={"learning_rate": 3e-3}, method={"warmup_epochs": 0}
)
GRID = """
title = "Two cells"
data = "noise"
recipe = "base.toml"
[[figures]]
name = "Accuracy"
figure = "accuracy"
[[figures]]
name = "Surprise"
figure = "recall.surprise"
[[figures]]
name = "Epochs"
figure = "epochs"
[[rows]]
name = "all losses"
published = "72.48 - -"
[[rows]]
name = "classification"
published = "68.15 - -"
set.method = { anchor = 0.0, centre = 0.0 }
[[rows]]
name = "not here"
published = "1.00 - -"
missing = "no code"
"""


@pytest.fixture(scope="module")
def grid_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grid")
    (folder / "base.toml").write_text(BASE, encoding="utf-8")
    (folder / "two.toml").write_text(GRID, encoding="utf-8")
    return folder / "two.toml"


def sweep(grid: object, output: Path, *options: str) -> Result:
    return CliRunner().invoke(
        cli.app, ["sweep", str(grid), "--output", str(output), "--device", "cpu", *options]
    )


def lines_of(output: Path) -> dict[str, list[str]]:
    """Return the cells of the first table: those of ours under the name of the row above them."""
    text = (output / "TABLE.md").read_text(encoding="utf-8").split("## Best")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"]
    found, name = {}, ""
    for row in rows[2:]:
        name = row[0] or name
        found[f"{name}: {row[1]}"] = row[2:]
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole") / "sweep"


@pytest.fixture
def whole(place: Path, grid_file: Path, noise_data: Path, quiet_torch: None) -> Path:
    """The folder of a sweep that nothing interrupted, trained once, on one thread."""
    if not place.exists():
        result = sweep(grid_file, place, "--data", f"noise={noise_data}")
        assert result.exit_code == 0, result.output
        assert result.stdout == f"{place / 'TABLE.md'}\n"
    return place


def test_a_sweep_trains_its_cells_and_writes_their_figures(whole: Path, noise_data: Path) -> None:
    found = lines_of(whole)
    assert list(found) == [
        "all losses: published",
        "all losses: ours",
        "classification: published",
        "classification: ours",
        "not here: published",
    ]
    for row, name in (("all losses", "all-losses"), ("classification", "classification")):
        run = RunFolder(whole / "runs" / f"{name}.seed-0")
        last = [json.loads(line) for line in run.metrics.read_text().splitlines()][-1]
        accuracy, surprise, epochs = found[f"{row}: ours"]
        assert accuracy == f"{100 * last['accuracy']:.2f}" and epochs == "2"
        assert surprise == f"{100 * recall_of_surprise(run.last, noise_data):.2f}"
        recipe = json.loads(run.recipe.read_text())["recipe"]
        assert (recipe["method"]["anchor"] == 0.0) == (row == "classification")
    page = (whole / "TABLE.md").read_text(encoding="utf-8")
    assert "| classification | 1 | 2 | 144 |" in page and "torch" in page
    assert not list(whole.rglob("*.part")) and not list(whole.rglob("*.tmp"))


def recall_of_surprise(checkpoint: Path, data: Path) -> float:
    """Compute the recall from the checkpoint and the pictures themselves."""
    import numpy as np
    import torch
    from PIL import Image

    network = load_checkpoint(checkpoint).network.eval()
    crops = [np.asarray(Image.open(path)) for path in sorted((data / "valid" / "surprise").iterdir())]
    with torch.inference_mode():
        answers = network(normalise(torch.from_numpy(np.stack(crops)), network)).probabilities
    return float((metrics.top1(answers.numpy()) == 2).mean())


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    def train_run(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(session, "train_run", train_run)


def test_what_is_finished_is_not_trained_again(
    whole: Path, grid_file: Path, noise_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch)
    before = (whole / "TABLE.md").read_bytes()
    (whole / "TABLE.md").unlink()
    assert sweep(grid_file, whole, "--data", f"noise={noise_data}").exit_code == 0
    assert (whole / "TABLE.md").read_bytes() == before
    assert sweep(grid_file, whole).exit_code == 0  # the data set is known from before
    assert (whole / "TABLE.md").read_bytes() == before


class Kill(BaseException):
    """Ends a sweep in the middle, as a kill does."""


def test_a_sweep_killed_in_a_run_ends_the_same(
    whole: Path, grid_file: Path, noise_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, trained = tmp_path / "killed", []
    save, run = RunFolder.save_state, session.train_run

    def save_or_die(folder: RunFolder, *arguments: Any) -> None:
        save(folder, *arguments)
        if "classification" in folder.path.name and arguments[1].step == 2:
            raise Kill

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_state", save_or_die)
        with pytest.raises(Kill):
            sweep_in_process(grid_file, output, noise_data)
    first = lines_of(output)
    assert first["all losses: ours"] == lines_of(whole)["all losses: ours"]
    assert first["classification: ours"] == ["", "", ""]

    def counted(options: Any) -> None:
        trained.append((options.output.name, options.resume))
        run(options)

    monkeypatch.setattr(session, "train_run", counted)
    sweep_in_process(grid_file, output, noise_data)
    assert trained == [("classification.seed-0", True)]
    assert lines_of(output) == lines_of(whole)
    for name in ("last", "best"):
        files = [f / "runs" / "classification.seed-0" / f"{name}.safetensors" for f in (output, whole)]
        states = [load_checkpoint(file).network.state_dict() for file in files]
        assert all((states[0][key] == states[1][key]).all() for key in states[1])


def sweep_in_process(grid: Path, output: Path, data: Path) -> None:
    session.sweep_run(
        session.SweepOptions(
            grid=str(grid), output=output, data={"noise": str(data)}, choice=session.Choice(), device="cpu"
        )
    )


def test_a_part_of_the_first_epoch_is_no_whole_one(
    noise_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(tmp_path, noise_data, optimiser={"minutes": 1.0})  # an epoch is of three batches
    monkeypatch.setattr(Trainer, "out_of_time", property(lambda trainer: trainer.progress.step >= 1))
    train_run(run)
    outcome = collect(RunFolder(run.output), str(noise_data), recalls=False)
    assert outcome.last["epochs"] == outcome.best["epochs"] == pytest.approx(1 / 3)
    assert outcome.faces == 24


def test_a_run_that_fails_is_a_line_and_the_rest_goes_on(
    whole: Path, grid_file: Path, noise_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "sweep"
    run = session.train_run

    def fail(options: Any) -> None:
        if options.output.name.startswith("all"):
            raise TrainingError("step 3: the loss term centre is not finite | lower it")
        shutil.copytree(whole / "runs" / options.output.name, options.output)

    monkeypatch.setattr(session, "train_run", fail)
    result = sweep(grid_file, output, "--data", f"noise={noise_data}")
    assert result.exit_code == 1 and result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [
        "error: all-losses.seed-0: step 3: the loss term centre is not finite | lower it",
        f"error: 1 of 2 runs failed, see {output / 'TABLE.md'}",
    ]
    page = (output / "TABLE.md").read_text(encoding="utf-8")
    assert "## Failed\n\n* all-losses: step 3: the loss term centre is not finite \\| lower it\n" in page
    found = lines_of(output)
    assert found["all losses: ours"] == ["", "", ""] and found["classification: ours"][2] == "2"

    def mend(options: Any) -> None:
        assert options.output.name.startswith("all")
        shutil.copytree(whole / "runs" / options.output.name, options.output)

    monkeypatch.setattr(session, "train_run", mend)
    assert sweep(grid_file, output, "--data", f"noise={noise_data}").exit_code == 0
    assert lines_of(output) == lines_of(whole) and "Failed" not in (output / "TABLE.md").read_text()
    assert run is not session.train_run


def test_a_grid_is_cut_down_and_grows_again(
    whole: Path, grid_file: Path, noise_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, trained = tmp_path / "sweep", []

    def copy(options: Any) -> None:
        trained.append(options.output.name)
        assert options.recipe_path.is_file() and not options.resume
        shutil.copytree(whole / "runs" / "all-losses.seed-0", options.output)

    monkeypatch.setattr(session, "train_run", copy)
    assert sweep(grid_file, output, "--data", f"noise={noise_data}", "--rows", "All*").exit_code == 0
    assert trained == ["all-losses.seed-0"]
    assert lines_of(output)["classification: ours"] == ["", "", ""]
    assert sweep(grid_file, output, "--data", f"noise={noise_data}", "--seeds", "2").exit_code == 0
    assert trained[1:] == ["all-losses.seed-1", "classification.seed-0", "classification.seed-1"]
    assert "±" in lines_of(output)["classification: ours"][0]


def test_without_data_the_published_figures_are_shown(tmp_path: Path) -> None:
    result = sweep("grefel-table-3", tmp_path / "sweep")
    assert result.exit_code == 0, result.output
    assert lines_of(tmp_path / "sweep")["All losses: published"] == ["72.48", "0.731"]
    assert not any("ours" in name for name in lines_of(tmp_path / "sweep"))


def refusal(result: Result, code: int = 1) -> str:
    assert result.exit_code == code, result.output
    assert result.stdout == "" and len(result.stderr.splitlines()) == 1, result.stderr
    return result.stderr


def test_what_a_sweep_cannot_do_is_said_before_anything_is_trained(
    whole: Path, grid_file: Path, noise_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch)
    new, data = tmp_path / "new", f"noise={noise_data}"
    assert all(name in refusal(sweep("none", new)) for name in grid_names())
    assert "knows noise" in refusal(sweep(grid_file, new, "--data", f"raf-db={noise_data}"))
    assert "NAME=DATA" in refusal(sweep(grid_file, new, "--data", str(noise_data)), 2)
    assert "got two" in refusal(sweep(grid_file, new, "--data", data, "--data", data), 2)
    assert "got both" in refusal(sweep(grid_file, new, "--epochs", "1", "--minutes", "1"), 2)
    for minutes in ("0", "nan", "inf", "-1"):
        assert "--minutes above 0" in refusal(sweep(grid_file, new, "--minutes", minutes), 2)
    assert "expected a row" in refusal(sweep(grid_file, new, "--data", data, "--rows", "x"))
    assert "expected ferplus:DIR, " in refusal(sweep(grid_file, new, "--data", f"noise={new}"))
    assert not new.exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("x")
    assert "expected a new folder or that of a sweep" in refusal(sweep(grid_file, tmp_path / "other"))


def test_a_folder_keeps_to_one_budget_one_recipe_and_one_data_set(
    whole: Path, grid_file: Path, noise_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch)
    data = f"noise={noise_data}"
    before = (whole / "TABLE.md").read_bytes()
    assert "another epochs" in refusal(sweep(grid_file, whole, "--data", data, "--epochs", "3"))
    assert "another minutes" in refusal(sweep(grid_file, whole, "--data", data, "--minutes", "3"))
    shutil.copytree(noise_data, tmp_path / "copy")
    assert "another data noise" in refusal(sweep(grid_file, whole, "--data", f"noise={tmp_path / 'copy'}"))
    changed = tmp_path / "two.toml"
    changed.write_text(GRID.replace("anchor = 0.0", "anchor = 0.5"), encoding="utf-8")
    (tmp_path / "base.toml").write_text(BASE, encoding="utf-8")
    assert "another classification.seed-0" in refusal(sweep(changed, whole, "--data", data))
    changed.rename(tmp_path / "three.toml")
    assert "another grid" in refusal(sweep(tmp_path / "three.toml", whole, "--data", data))
    assert (whole / "TABLE.md").read_bytes() == before


def test_a_folder_has_one_sweep_at_a_time_and_damaged_files_are_named(
    whole: Path, grid_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch)
    output = tmp_path / "sweep"
    shutil.copytree(whole, output)
    with held(output):
        assert "another process is at work here" in refusal(sweep(grid_file, output))
    (output / "recipes" / "all-losses.seed-0.toml").write_bytes(b"\xff")
    assert "another all-losses.seed-0" in refusal(sweep(grid_file, output))
    (output / "sweep.json").write_text("[" * 100_000, encoding="utf-8")
    assert "sweep.json: expected that of a sweep" in refusal(sweep(grid_file, output))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "{",
        "[" * 100_000,
        '{"last": {}, "x": 1}',
        '{"last": 3}',
        '{"failed": 3}',
        '{"failed": "x", "faces": "many"}',
        '{"last": {"epochs": 1, "parameters": 1, "accuracy": null}}',
    ],
)
def test_a_damaged_outcome_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(TrainingError, match=r"x.json: expected the outcome of a run"):
        Outcome.read(tmp_path / "x.json")
