"""What holds of every method: a killed run resumes to the same, two processes are one, checkpoints infer."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from tests.training.tiny_run import UNCHANGED, Table, tiny_run
from training.methods import METHODS
from training.models.checkpoint import load_checkpoint
from training.run import Progress, RunFolder
from training.session import TrainOptions, train_run

Tables = dict[str, Table]
# What makes a method keep something of its own, or draw, as early as in the first epoch.
LIVELY: Tables = {
    "cross_entropy": {"centre": 0.01},
    "eac": {"erase": 0.5},
    "grefel": {"warmup_epochs": 0},
    "ldlva": {"neighbours": 2, "uncertainty_momentum": 0.9},
    "rac_rsl": {"transform": "intensity"},
    "scn": {"relabel": "all", "relabel_epoch": 0, "relabel_margin": 0.0},
}
# Without anything drawn, and by SGD: Adam would turn differences of rounding into steps of its own size.
CALM: Tables = {**LIVELY, "eac": {"erase": 0.0}, "rac_rsl": {"transform": "flip"}, "dmue": {"dropout": 0.0}}
# These compare the faces of a batch with each other, and a process has its own faces alone.
WITHIN_A_PROCESS = ("dan", "dmue", "scn")
# Its faces are mixed with partners that every process draws for itself.
DRAWS = ("rul",)


def run_of(name: str, folder: Path, data: Path, part: str, tables: Tables) -> TrainOptions:
    """Return what `train` is asked for to train this method; `part` tells its runs apart."""
    known: Tables = {
        "data": {"valence_arousal": "prototypes"} | ({"sampler": "balanced"} if name == "dmue" else {}),
        "method": {"name": name, **tables["method"]},
    }
    return tiny_run(folder, data, f"{name}-{part}", **{**tables, **known})


@pytest.fixture(scope="module")
def context() -> ForkServerContext:
    """Processes forked from one that has imported what trains, and has not trained."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training.session"])
    return context


def train_until_killed(run: TrainOptions) -> None:
    """Train until the system kills this process, in the second epoch: a line is written, its state is not."""
    torch.set_num_threads(1)
    append = RunFolder.append

    def append_and_die(folder: RunFolder, progress: Progress, record: Mapping[str, object]) -> Progress:
        after = append(folder, progress, record)
        if record["step"] == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return after

    RunFolder.append = append_and_die  # type: ignore[method-assign]
    train_run(run)


def training_lines(output: Path) -> list[dict[str, Any]]:
    """Return the training lines of a run's metrics but for the speed."""
    lines = map(json.loads, (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [
        {k: v for k, v in line.items() if k != "faces_per_s"} for line in lines if line["kind"] == "train"
    ]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_run_that_is_killed_is_the_same_when_resumed(
    name: str, tmp_path: Path, noise_data: Path, context: ForkServerContext
) -> None:
    tables: Tables = {"method": LIVELY.get(name, {}), "optimiser": {"average": 0.9}}
    whole, killed = (run_of(name, tmp_path, noise_data, part, tables) for part in ("whole", "killed"))
    train_run(whole)
    process = context.Process(target=train_until_killed, args=(killed,))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert [line["step"] for line in training_lines(killed.output)] == [1, 2, 3, 4, 5]
    train_run(replace(killed, resume=True))
    assert training_lines(killed.output) == training_lines(whole.output)
    for file in ("state", "last", "best"):
        left, right = (load_file(run.output / f"{file}.safetensors") for run in (whole, killed))
        assert left.keys() == right.keys()
        assert [key for key in left if not torch.equal(left[key], right[key])] == [], file
    network = load_checkpoint(whole.output / "last.safetensors").network
    assert network.spec.head == METHODS[name].method.heads[0]
    with torch.inference_mode():
        said = network(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(said.probabilities.sum(dim=1), torch.ones(2))
    assert (said.probabilities is said.primary) == (name != "grefel")


def calm(name: str, folder: Path, data: Path, part: str, accumulate: int = 1) -> TrainOptions:
    """Return a run in which nothing is drawn but what a method itself draws."""
    tables: Tables = {
        "network": {"dropout": 0.0},
        "optimiser": {"kind": "sgd", "frozen_norms": True, "accumulate": accumulate},
        "method": CALM.get(name, {}),
        "augment": UNCHANGED,
    }
    return run_of(name, folder, data, part, tables)


def train_as(rank: int, port: int, runs: list[TrainOptions]) -> None:
    """Train one run after the other as one of two processes that torchrun has started."""
    torch.set_num_threads(1)
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "two",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    for run in runs:
        train_run(run)


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory, noise_data: Path, context: ForkServerContext) -> Path:
    """Return the folder of the runs of all methods, trained by the same two processes."""
    folder = tmp_path_factory.mktemp("two")
    runs = [calm(name, folder, noise_data, "two") for name in METHODS]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pair = [context.Process(target=train_as, args=(rank, port, runs)) for rank in range(2)]
    for process in pair:
        process.start()
    for process in pair:
        process.join(300)
    assert [process.exitcode for process in pair] == [0, 0]
    return folder


def terms(output: Path) -> NDArray[np.float64]:
    """Return every term of every step, (steps, terms)."""
    not_terms = ("kind", "relabelled")  # a count of so far, which two parts reach one after the other
    lines = [sorted(line.items()) for line in training_lines(output)]
    return np.array([[v for k, v in line if k not in not_terms] for line in lines], np.float64)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_two_processes_are_one_with_the_double_batch(
    name: str, by_two: Path, tmp_path: Path, noise_data: Path
) -> None:
    """With BatchNorms in eval mode: the statistics of a batch are those of half of it on each of two."""
    two = by_two / f"{name}-two"
    both = terms(two)
    assert len(both) == 6 and np.isfinite(both).all()
    if name in DRAWS:
        return
    one = calm(name, tmp_path, noise_data, "one", accumulate=2 if name in WITHIN_A_PROCESS else 1)
    train_run(one)
    np.testing.assert_allclose(both, terms(one.output), rtol=0, atol=1e-5)
    left, right = (load_file(run / "last.safetensors") for run in (one.output, two))
    assert all(torch.allclose(left[key], right[key], rtol=1e-5, atol=1e-6) for key in left)
