"""A run that is killed and resumed ends in the same weights, bit for bit; and what a run refuses."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from safetensors.torch import load_file
from typer.testing import CliRunner

import cli
from edge_fer.preprocess import CropSpec
from tests.training.tiny_run import tiny_recipe
from training.learner import Learner
from training.methods.method import Terms
from training.models.checkpoint import load_checkpoint
from training.optimiser import learning_rate
from training.options import OptimiserOptions
from training.run import RunFolder
from training.session import TrainOptions, train_run

ROOT = Path(__file__).resolve().parents[2]
# Nine batches an epoch: 72 faces.
OPTIMISER = {"epochs": 3, "batch_size": 8, "learning_rate": 3e-3, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Recipe files by their precision."""
    folder = tmp_path_factory.mktemp("recipes")
    files = {}
    for precision, average in (("32-true", 0.0), ("bf16-mixed", 0.9)):
        files[precision] = folder / f"{precision}.toml"
        text = tiny_recipe(
            network={"model": "grefel-lite"},
            optimiser={**OPTIMISER, "precision": precision, "average": average},
            method={"anchor": 0.1, "centre": 0.1},
            weights={"licence": "Apache-2.0"},
        )
        files[precision].write_text(text, encoding="utf-8")
    return files


def command(recipe: Path, data: Path, output: Path, *options: str) -> list[str]:
    return [
        "train",
        "--recipe",
        str(recipe),
        "--data",
        str(data),
        "--output",
        str(output),
        "--device",
        "cpu",
        *options,
    ]


def train(recipe: Path, data: Path, output: Path, *, resume: bool) -> None:
    train_run(TrainOptions(recipe_path=recipe, data=str(data), output=output, device="cpu", resume=resume))


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """Start `python cli.py` on one thread."""
    return subprocess.Popen(
        [sys.executable, "cli.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def metric_lines(output: Path) -> list[dict[str, object]]:
    """Return the lines of metrics but for the speed."""
    file = output / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    complete = [json.loads(line) for line in lines if line.endswith("}")]
    return [{key: value for key, value in line.items() if key != "faces_per_s"} for line in complete]


def check_same_run(output: Path, expected: Path) -> None:
    """Compare two run folders: every tensor of every file bit for bit, metrics and headers too."""
    names = {"best.safetensors", "last.safetensors", "metrics.jsonl", "recipe.json", "state.safetensors"}
    names |= {"environment.jsonl", "summary.md"}
    assert {path.name for path in output.iterdir()} == {path.name for path in expected.iterdir()} == names
    assert metric_lines(output) == metric_lines(expected)
    for name in ("best.safetensors", "last.safetensors", "state.safetensors"):
        left, right = load_file(output / name), load_file(expected / name)
        assert left.keys() == right.keys()
        different = [
            key for key, tensor in right.items() if left[key].numpy().tobytes() != tensor.numpy().tobytes()
        ]
        assert different == [], name
    for name in ("best.safetensors", "last.safetensors"):
        assert load_checkpoint(output / name).info == load_checkpoint(expected / name).info


@pytest.fixture(scope="module")
def uninterrupted(
    recipes: dict[str, Path], noise_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Return the folder of a whole run in this process, made once per precision."""
    done: dict[str, Path] = {}

    def folder(precision: str) -> Path:
        if precision not in done:
            output = tmp_path_factory.mktemp("whole") / precision
            train(recipes[precision], noise_data, output, resume=False)
            done[precision] = output
        return done[precision]

    return folder


def test_a_run_writes_what_it_promises(uninterrupted: Callable[[str], Path]) -> None:
    output = uninterrupted("32-true")
    lines = metric_lines(output)
    validations = [line for line in lines if line["kind"] == "validation"]
    training = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in validations] == [9, 18, 27]
    assert [line["step"] for line in training] == [2, 4, 6, 8, 9, 11, 13, 15, 17, 18, 20, 22, 24, 26, 27]
    for line in training:
        terms = {"total", "classification", "anchor", "centre", "correction_weight", "anchor_weight"}
        assert terms < line.keys()
        balanced = line["epoch"] != 0  # the first epoch trains the primary distribution alone
        assert (line["anchor"] != 0.0) == (line["centre"] != 0.0) == balanced
    assert training[-1]["total"] < training[5]["total"]
    assert validations[0]["warnings"] == []
    best = max(range(3), key=lambda epoch: (validations[epoch]["accuracy"], -epoch))
    assert load_checkpoint(output / "best.safetensors").info["epoch"] == best
    checkpoint = load_checkpoint(output / "last.safetensors")
    assert checkpoint.info["epoch"] == 2
    assert checkpoint.info["weights"] == {"licence": "Apache-2.0", "training_data": "not stated"}
    assert checkpoint.crop == CropSpec(size=32, margin=0.0)
    assert checkpoint.network.spec.labels == ("neutral", "happiness", "surprise")


def test_the_same_recipe_gives_the_same_run_in_another_process_killed_and_resumed(
    recipes: dict[str, Path], noise_data: Path, tmp_path: Path, uninterrupted: Callable[[str], Path]
) -> None:
    output = tmp_path / "killed"
    arguments = command(recipes["32-true"], noise_data, output)
    process = start(arguments)
    deadline = time.monotonic() + 100
    while not any(line["epoch"] == 1 for line in metric_lines(output)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no metrics"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert load_checkpoint(output / "last.safetensors").info["epoch"] == 0
    assert len(metric_lines(output)) < 18

    printed = finish(start([*arguments, "--resume"]))
    assert printed.splitlines()[-1] == str(output / "best.safetensors")
    check_same_run(output, uninterrupted("32-true"))


class Kill(BaseException):
    """Ends a run in the middle, as a kill does: nothing catches it."""


def kill_at_save(monkeypatch: pytest.MonkeyPatch, number: int, *, before: bool) -> None:
    """Bring the run down just before or just after its state is saved for this time, counted from 1."""
    save, calls = RunFolder.save_state, itertools.count(1)

    def save_or_die(*arguments: Any) -> None:
        last = next(calls) == number
        if last and before:
            raise Kill
        save(*arguments)
        if last:
            raise Kill

    monkeypatch.setattr(RunFolder, "save_state", save_or_die)


# An epoch saves five times while it trains (after 2, 4, 6, 8 and 9 batches) and once after its validation.
@pytest.mark.parametrize(
    ("precision", "kills"),
    [
        ("32-true", [(1, "before")]),  # nothing saved yet
        ("32-true", [(3, "after")]),  # in the middle of the epoch that trains the primary distribution
        ("32-true", [(6, "before")]),  # validated and written, but not saved
        ("32-true", [(6, "after"), (1, "after"), (2, "before")]),  # around the placing of the anchors
        ("32-true", [(18, "after")]),  # at the very end
        ("bf16-mixed", [(9, "before")]),
    ],
)
def test_a_run_brought_down_anywhere_ends_the_same(
    precision: str,
    kills: list[tuple[int, str]],
    recipes: dict[str, Path],
    noise_data: Path,
    tmp_path: Path,
    uninterrupted: Callable[[str], Path],
) -> None:
    output = tmp_path / "killed"
    for number, (save, when) in enumerate(kills):
        with pytest.MonkeyPatch.context() as monkeypatch:
            kill_at_save(monkeypatch, save, before=when == "before")
            with pytest.raises(Kill):
                train(recipes[precision], noise_data, output, resume=number > 0)
        # What a kill in the middle of a write leaves behind.
        (output / ".state.safetensors.part").write_bytes(b"half a state")
        with (output / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write('{"kind": "tra')
    train(recipes[precision], noise_data, output, resume=True)
    check_same_run(output, uninterrupted(precision))


def test_resuming_a_finished_run_changes_nothing(
    recipes: dict[str, Path], noise_data: Path, uninterrupted: Callable[[str], Path]
) -> None:
    output = uninterrupted("32-true")
    before = contents(output)
    result = invoke(command(recipes["32-true"], noise_data, output, "--resume"))
    assert result.exit_code == 0
    assert result.stdout == f"{output / 'best.safetensors'}\n"
    assert contents(output) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "state.safetensors"}


def invoke(arguments: list[str]) -> Result:
    return CliRunner().invoke(cli.app, arguments)


def refusal(arguments: list[str]) -> str:
    """Return the one line of error of a command that fails."""
    result = invoke(arguments)
    assert result.exit_code == 1, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and result.stderr.splitlines()[-1] == errors[0]
    assert result.stdout == ""
    return errors[0]


def test_a_folder_that_holds_a_run_is_not_overwritten(
    recipes: dict[str, Path], noise_data: Path, uninterrupted: Callable[[str], Path]
) -> None:
    output = uninterrupted("32-true")
    before = contents(output)
    text = refusal(command(recipes["32-true"], noise_data, output))
    assert f"{output}: expected a new or empty folder; pass --resume" in text
    assert contents(output) == before


def test_a_run_goes_on_with_its_own_recipe_and_data_only(
    recipes: dict[str, Path], noise_data: Path, tmp_path: Path, uninterrupted: Callable[[str], Path]
) -> None:
    output = uninterrupted("32-true")
    before = contents(output)
    text = refusal(command(recipes["bf16-mixed"], noise_data, output, "--resume"))
    assert "another recipe, data, --start or --teacher" in text
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
    text = refusal(command(recipes["32-true"], tmp_path, output, "--resume"))
    assert "another recipe, data, --start or --teacher" in text
    assert contents(output) == before


def test_there_has_to_be_a_run_to_resume(recipes: dict[str, Path], noise_data: Path, tmp_path: Path) -> None:
    text = refusal(command(recipes["32-true"], noise_data, tmp_path / "none", "--resume"))
    assert "expected a run to resume, found none" in text
    assert not (tmp_path / "none").exists()


def test_nothing_is_left_of_a_run_that_cannot_start(
    recipes: dict[str, Path], noise_data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    (tmp_path / "train").mkdir()
    (tmp_path / "valid").mkdir()
    assert "got none" in refusal(command(recipes["32-true"], tmp_path, output))
    large = tmp_path / "large.toml"
    large.write_text(recipes["32-true"].read_text().replace("batch_size = 8", "batch_size = 73"))
    assert "expected at least one batch of 73 faces, got 72" in refusal(command(large, noise_data, output))
    assert "got 'tpu'" in refusal(command(recipes["32-true"], noise_data, output, "--device", "tpu"))
    assert not output.exists()


@pytest.mark.parametrize("damage", ["truncated", "foreign"])
def test_a_damaged_state_is_refused(
    damage: str,
    recipes: dict[str, Path],
    noise_data: Path,
    tmp_path: Path,
    uninterrupted: Callable[[str], Path],
) -> None:
    output = tmp_path / "run"
    shutil.copytree(uninterrupted("32-true"), output)
    state = output / "state.safetensors"
    state.write_bytes(
        state.read_bytes()[:-9] if damage == "truncated" else (output / "last.safetensors").read_bytes()
    )
    before = contents(output)
    assert str(state) in refusal(command(recipes["32-true"], noise_data, output, "--resume"))
    assert contents(output) == before


def test_a_loss_that_is_no_number_is_named(
    recipes: dict[str, Path], noise_data: Path, tmp_path: Path
) -> None:
    wild = tmp_path / "wild.toml"
    wild.write_text(recipes["32-true"].read_text().replace("rate = 0.003", "rate = 1e12"), encoding="utf-8")
    text = refusal(command(wild, noise_data, tmp_path / "run"))
    assert re.search(r"step 1: the loss term classification is not finite", text), text
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"recipe.json", "environment.jsonl"}


@pytest.mark.parametrize("fault", ["loss", "gradient"])
def test_a_run_that_stops_on_a_fault_keeps_its_last_good_state(
    fault: str,
    recipes: dict[str, Path],
    noise_data: Path,
    tmp_path: Path,
    uninterrupted: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "run"
    forward = Learner.forward

    def faulty(learner: Learner, *arguments: Any) -> Terms:
        """Spoil the centre term, or its gradient alone, in the twelfth step."""
        good = forward(learner, *arguments)
        if learner.moment.step != 12:
            return good
        if fault == "loss":
            return {**good, "total": good["total"] * math.nan, "centre": good["centre"] * math.nan}
        nought = good["centre"] - good["centre"]
        return {**good, "total": good["total"] + nought.abs().sqrt()}  # the root of 0 has no gradient

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "forward", faulty)
        text = refusal(command(recipes["32-true"], noise_data, output))
    named = "loss term centre" if fault == "loss" else "norm of the gradient"
    assert f"step 12: the {named} is not finite" in text
    state = load_file(output / "state.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in state.values())
    train(recipes["32-true"], noise_data, output, resume=True)
    check_same_run(output, uninterrupted("32-true"))


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    options = OptimiserOptions(epochs=1, learning_rate=2.0, warmup=0.25)
    rates = [learning_rate(options, step, 40) for step in range(40)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10:] == pytest.approx([1 + math.cos(math.pi * step / 30) for step in range(30)])
