"""How a run is run: in parts, on several processes, against the clock, and what stops it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from edge_fer.errors import TrainingError
from tests.training.tiny_run import UNCHANGED, Table, tiny_run
from training import loop
from training.learner import Learner, Parcel
from training.loop import Trainer
from training.models.checkpoint import load_checkpoint
from training.session import TrainOptions, train_run

ROOT = Path(__file__).resolve().parents[2]
# Adam would turn differences of rounding into steps of its own size.
SAME = {"frozen_norms": True, "kind": "sgd"}


def options(folder: Path, data: Path, name: str = "run", /, **tables: Table) -> TrainOptions:
    """Return what `train` is asked for, with no augmentation and no dropout."""
    return tiny_run(folder, data, name, network={"dropout": 0}, augment=UNCHANGED, **tables)


def lines_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if line["kind"] == kind]


def losses(folder: Path) -> list[float]:
    return [line["total"] for line in lines_of(folder, "train")]


def test_a_batch_in_parts_is_the_same_batch(tmp_path: Path, noise_data: Path) -> None:
    whole = options(tmp_path, noise_data, "whole", optimiser=SAME)
    parts = options(tmp_path, noise_data, "parts", optimiser={**SAME, "accumulate": 3})
    for run in (whole, parts):
        train_run(run)
    assert losses(parts.output) == pytest.approx(losses(whole.output), abs=1e-5)
    left, right = (load_file(run.output / "last.safetensors") for run in (whole, parts))
    assert all(torch.allclose(left[name], right[name], atol=1e-6) for name in left)


def test_centres_need_whole_batches_and_cross_entropy_alone_does_not(
    tmp_path: Path, noise_data: Path
) -> None:
    def parts(name: str, centre: float) -> TrainOptions:
        method = {"name": "cross_entropy", "centre": centre}
        return options(tmp_path, noise_data, name, optimiser={**SAME, "accumulate": 3}, method=method)

    train_run(parts("plain", 0.0))
    with pytest.raises(TrainingError, match=r"accumulate = 1 with cross_entropy, which updates its centres"):
        train_run(parts("centre", 0.1))


def test_two_processes_of_torchrun_are_one_with_the_double_batch(tmp_path: Path, noise_data: Path) -> None:
    """With BatchNorms in eval mode, and for the default method: test_every_method.py has all of them."""
    runs = {name: options(tmp_path, noise_data, name, optimiser=SAME) for name in ("one", "two")}
    train_run(runs["one"])
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "cli.py", "train"]
    asked = runs["two"]
    done = subprocess.run(
        [
            sys.executable,
            *command,
            "--recipe",
            str(asked.recipe_path),
            "--data",
            asked.data,
            "--output",
            str(asked.output),
            "--device",
            "cpu",
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(asked.output / "best.safetensors")]
    assert losses(asked.output) == pytest.approx(losses(runs["one"].output), abs=1e-5)
    environment = json.loads((asked.output / "environment.jsonl").read_text(encoding="utf-8"))
    assert environment["processes"] == 2
    left, right = (load_file(run.output / "last.safetensors") for run in runs.values())
    assert all(torch.allclose(left[name], right[name], atol=1e-6) for name in left)


def test_a_batch_that_does_not_come_out_even_is_refused(tmp_path: Path, noise_data: Path) -> None:
    with pytest.raises(TrainingError, match=r"a multiple of 5 \(1 processes times accumulate 5\).*got 24"):
        train_run(options(tmp_path, noise_data, optimiser={"accumulate": 5}))
    assert not (tmp_path / "run").exists()


def test_patience_ends_a_run(tmp_path: Path, noise_data: Path) -> None:
    still = {"learning_rate": 1e-12, "frozen_norms": True}  # nothing ever gets better
    optimiser = {"epochs": 9, "patience": 2, **still}
    run = options(tmp_path, noise_data, optimiser=optimiser, method={"warmup_epochs": 0})
    train_run(run)
    assert [line["epoch"] for line in lines_of(run.output, "validation")] == [0, 1, 2]


def test_minutes_end_a_run_and_the_rate_with_it(tmp_path: Path, noise_data: Path) -> None:
    run = options(tmp_path, noise_data, optimiser={"epochs": 100_000, "minutes": 0.05})
    train_run(run)
    trained = lines_of(run.output, "train")
    assert 1 < len(trained) < 300_000
    assert trained[-1]["learning_rate"] < 0.3e-3 < max(line["learning_rate"] for line in trained)
    assert lines_of(run.output, "validation")[-1]["step"] == trained[-1]["step"]
    before = (run.output / "metrics.jsonl").read_bytes()
    train_run(replace(run, resume=True))
    assert (run.output / "metrics.jsonl").read_bytes() == before


def test_a_run_brought_down_after_its_last_minute_is_validated_when_resumed(
    tmp_path: Path, noise_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = options(tmp_path, noise_data, optimiser={"epochs": 100_000, "minutes": 0.02})

    def fall(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "out_of_time", property(lambda trainer: trainer.progress.step == 2))
        patch.setattr(loop, "evaluate", fall)
        train_run(run)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "out_of_time", property(lambda trainer: trainer.progress.step >= 2))
        train_run(replace(run, resume=True))
    assert [line["step"] for line in lines_of(run.output, "validation")] == [2]
    assert lines_of(run.output, "train")[-1]["step"] == 2
    assert load_checkpoint(run.output / "last.safetensors").info["epoch"] == 0


def test_sharpness_changes_what_is_learnt_and_not_the_statistics(tmp_path: Path, noise_data: Path) -> None:
    flat = options(tmp_path, noise_data, "flat")
    sharp = options(tmp_path, noise_data, "sharp", optimiser={"sharpness": 0.05})
    for run in (flat, sharp):
        train_run(run)
    left, right = (load_file(run.output / "last.safetensors") for run in (flat, sharp))
    assert not torch.equal(left["encoder.stem.0.weight"], right["encoder.stem.0.weight"])
    assert losses(flat.output)[0] == losses(sharp.output)[0]  # of the first pass
    assert losses(flat.output)[1:] != losses(sharp.output)[1:]


def test_memory_that_runs_out_suggests_parts(
    tmp_path: Path, noise_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(learner: Learner, parcel: Parcel) -> None:
        torch.empty(1 << 60, dtype=torch.uint8)  # a real refusal of the allocator

    monkeypatch.setattr(Learner, "forward", greedy)
    with pytest.raises(TrainingError, match=r"out of memory with 24 faces .*accumulate = 2 .*parts of 12"):
        train_run(options(tmp_path, noise_data))


def test_memory_that_runs_out_while_validating_is_told(
    tmp_path: Path, noise_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(*arguments: object) -> None:
        torch.empty(1 << 60, dtype=torch.uint8)

    monkeypatch.setattr(loop, "evaluate", greedy)
    whole = {"name": "cross_entropy", "centre": 0.1}  # takes no parts
    with pytest.raises(TrainingError, match=r"out of memory with 24 faces at once; set a smaller batch_size"):
        train_run(options(tmp_path, noise_data, method=whole))


def test_compilation_without_a_compiler_is_refused_in_one_line(
    tmp_path: Path, noise_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(learner: Learner, parcel: Parcel) -> dict[str, torch.Tensor]:
        return {"total": next(learner.parameters()).square().sum()}

    monkeypatch.setattr(Learner, "forward", small)
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    with pytest.raises(
        TrainingError, match=r"torch\.compile: .*C\+\+ compiler.*optimiser\.compile = false"
    ) as error:
        train_run(options(tmp_path, noise_data, optimiser={"compile": True}))
    assert "\n" not in str(error.value)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that fills the disk from the given write of a whole file on."""

    def fill(first: int) -> None:
        real, count = os.fsync, 0

        def fsync(number: int) -> None:
            nonlocal count
            count += 1
            if count >= first:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(number)

        monkeypatch.setattr(os, "fsync", fsync)

    return fill


@pytest.mark.parametrize("first", [6, 10, 13])
def test_a_full_disk_loses_no_earlier_checkpoint(
    first: int, tmp_path: Path, noise_data: Path, full_disk: Callable[[int], None]
) -> None:
    run = options(tmp_path, noise_data)
    # Recipe, environment, three times metrics and state; last, best, metrics, summary and state of the epoch.
    full_disk(first)
    with pytest.raises(TrainingError, match=r"the disk is full; every checkpoint .* stays: .* --resume"):
        train_run(run)
    assert not list(run.output.glob(".*"))
    for path in run.output.glob("*.safetensors"):
        assert load_file(path)
    assert (run.output / "state.safetensors").exists()
    assert (run.output / "last.safetensors").exists() == (first > 9)


def test_a_run_folder_tells_what_was_run(tmp_path: Path, noise_data: Path) -> None:
    run = options(tmp_path, noise_data)
    train_run(run)
    validation = lines_of(run.output, "validation")
    summary = (run.output / "summary.md").read_text(encoding="utf-8")
    assert summary.startswith("# tiny\n\ngrefel-lite-s, method grefel, seed 0, data ")
    rows = [line for line in summary.splitlines() if line[:3] in ("| 0", "| 1")]
    assert [f"{line['accuracy']:.4f}" for line in validation] == [row.split(" | ")[1] for row in rows]
    best = load_checkpoint(run.output / "best.safetensors").info["epoch"]
    assert [" (best)" in row for row in rows] == [best == 0, best == 1]
    environment = json.loads((run.output / "environment.jsonl").read_text(encoding="utf-8"))
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert head.returncode or environment["commit"].startswith(head.stdout.strip())
    assert environment["torch"] == torch.__version__ and environment["processes"] == 1


def test_the_state_of_a_run_has_everything_of_the_method(tmp_path: Path, noise_data: Path) -> None:
    run = options(tmp_path, noise_data)
    seen: list[Trainer] = []
    resume = Trainer.run
    try:
        Trainer.run = lambda trainer, report: (seen.append(trainer), resume(trainer, report))[1]  # type: ignore[method-assign]
        train_run(run)
    finally:
        Trainer.run = resume  # type: ignore[method-assign]
    state = load_file(run.output / "state.safetensors")
    for part, module in (("model", seen[0].network), ("method", seen[0].method)):
        for name, tensor in module.state_dict().items():
            assert torch.equal(state[f"{part}.{name}"], tensor)
