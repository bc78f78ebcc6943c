"""Bench: the record, the turns, memory of a process of its own, the recommendation and its reasons."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_fer.bench import measure as module
from edge_fer.bench.choice import choose
from edge_fer.bench.measure import Candidate, Measured
from edge_fer.bench.process import Worker
from edge_fer.bundle import ModelSpec, write_bundle
from edge_fer.engines import EngineOptions
from edge_fer.errors import EngineError
from tests.conftest import error_lines, json_lines, run_command

KEYS = (
    *("bundle", "model", "target", "precision", "engine", "threads", "batch", "first_ms", "p50_ms", "p90_ms"),
    *("p99_ms", "throughput_per_s", "peak_rss_bytes", "size_bytes", "cpu", "isa", "recommended"),
)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STARTS", 2)
    monkeypatch.setattr(module, "MIN_ROUNDS", 5)
    monkeypatch.setattr(module, "TURN_MS", 2.0)
    monkeypatch.setattr(module, "SECONDS_PER_BUNDLE", 0.1)
    monkeypatch.setattr(module, "_BATCH_RUNS", 2)


def test_the_record_has_the_keys_of_the_design_and_sound_figures(tiny_bundle: Path) -> None:
    result = run_command("bench", tiny_bundle, "--json", "--threads", "1", "--batch", "3")
    assert (result.exit_code, result.stderr) == (0, "")
    (record,) = json_lines(result)
    assert tuple(record) == KEYS
    assert (record["bundle"], record["model"], record["target"]) == (str(tiny_bundle), "tiny", "onnx")
    assert (record["precision"], record["engine"]) == ("fp32", "onnxruntime")
    assert (record["threads"], record["batch"], record["recommended"]) == (1, 3, True)
    assert 0 < record["p50_ms"] <= record["p90_ms"] <= record["p99_ms"] < record["first_ms"]
    assert record["size_bytes"] == (tiny_bundle / "model.onnx").stat().st_size
    assert 2e7 < record["peak_rss_bytes"] < 2e8
    # Rows per second follow from the runs: between what the slowest hundredth and the median run give.
    assert 3e3 / record["p99_ms"] / 5 < record["throughput_per_s"] < 3e3 / record["p50_ms"] * 1.5


def test_several_bundles_one_broken_one_zipped(tiny_bundle: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tiny_bundle)
    (tmp_path / "broken.fer").mkdir()
    result = run_command("bench", tiny_bundle, tmp_path / "broken.fer", archive, "--json", "--profile")
    assert result.exit_code == 1
    assert len(error_lines(result)) == 1 and "broken.fer" in result.stderr
    records = json_lines(result)
    assert [record["bundle"] for record in records] == [str(tiny_bundle), archive]
    assert sum(record["recommended"] for record in records) == 1
    for record in records:
        assert tuple(record) == (*KEYS, "profile")
        shares = {one["class"]: one["share"] for one in record["profile"]["classes"]}
        assert sum(shares.values()) == pytest.approx(1)
        assert record["profile"]["kernel_share"] == pytest.approx(shares["matrix"])


def test_people_get_tables_and_a_recommendation(tiny_bundle: Path) -> None:
    result = run_command("bench", tiny_bundle, tiny_bundle, "--profile")
    assert (result.exit_code, result.stdout) == (0, "")
    for text in ("tiny.fer", "p99 ms", "batch 8", "Profile of", "kernel share", "recommended", "onnxruntime"):
        assert text in result.stderr
    assert "\x1b" not in result.stderr


def test_without_a_bundle_the_embedded_one_is_measured() -> None:
    (record,) = json_lines(run_command("bench", "--json"))
    assert (record["model"], record["precision"]) == ("grefel-lite", "int8")
    assert record["peak_rss_bytes"] < 150e6


@pytest.mark.parametrize(
    "arguments", [["--engine", "tflite"], ["--provider", "cuda-of-mine"], ["--device", "tpu"]]
)
def test_what_does_not_load_is_one_line(tiny_bundle: Path, arguments: list[str]) -> None:
    result = run_command("bench", tiny_bundle, "--json", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(error_lines(result)) == 1 == len(result.stderr.splitlines())


def test_wrong_options_are_wrong_usage(tiny_bundle: Path) -> None:
    for wrong in (["--batch", "0"], ["--batch", "100000"], ["--threads", "0"]):
        assert run_command("bench", tiny_bundle, *wrong).exit_code == 2


def test_memory_is_the_process_s_own(tiny_bundle: Path) -> None:
    ballast = np.ones(400_000_000, np.uint8)  # Linux lets a child's ru_maxrss start at this
    with Worker(tiny_bundle, EngineOptions(threads=1), 1) as worker:
        worker.time(1, 3)
        peak = worker.peak_rss_bytes()
    assert ballast[-1] == 1 and peak is not None and 2e7 < peak < 2e8


def test_a_worker_that_dies_is_one_line(tiny_bundle: Path) -> None:
    with Worker(tiny_bundle, EngineOptions(threads=1), 1) as worker:
        os.kill(worker._process.pid, signal.SIGKILL)
        with pytest.raises(EngineError, match="ended with -9") as error:
            worker.time(1, 1)
    assert "\n" not in str(error.value) and str(tiny_bundle) in str(error.value)


def test_a_worker_times_each_run_and_its_own_start(tiny_bundle: Path) -> None:
    with Worker(tiny_bundle, EngineOptions(threads=1), 1) as worker:
        assert worker.engine["engine"] == "onnxruntime" and worker.engine["threads"] == 1
        assert 10 < worker.first_ms < 20_000  # numpy and the engine cannot be imported faster
        found = worker.time(4, 7)
        assert len(found) == 7 and all(0 < ms < worker.first_ms for ms in found)


class Clock:
    """A stand-in for a worker that writes down when it is asked."""

    def __init__(self, name: str, log: list[str], ms: float) -> None:
        self.name, self.log, self.ms = name, log, ms

    def time(self, batch: int, runs: int) -> list[float]:
        self.log.append(f"{self.name}{runs}")
        return [self.ms] * runs


def test_turns_go_round_and_every_round_starts_with_another_bundle() -> None:
    log: list[str] = []
    workers: list[Any] = [Clock("a", log, 0.5), Clock("b", log, 1.0), Clock("c", log, 50.0)]
    rounds = module._take_turns(workers, 1, lambda share: None)
    assert log[:3] == ["a3", "b3", "c3"]  # how long a run takes
    turns = log[3:]  # 2 ms: four runs of a, two of b, one of c
    assert turns[:9] == ["a4", "b2", "c1", "b2", "c1", "a4", "c1", "a4", "b2"]
    assert len({len(one) for one in rounds}) == 1 and len(rounds[0]) >= 5
    assert {len(turn) for turn in rounds[0]} == {4} and {len(turn) for turn in rounds[2]} == {1}


def measured(spec: ModelSpec, name: str, ms: float, **changes: Any) -> Measured:
    """Make a measurement of 30 rounds around `ms`, with the same noise in all bundles."""
    noise = 1 + 0.1 * np.random.default_rng(0).random(30)
    jitter = 1 + changes.pop("jitter", 0.01) * np.random.default_rng(len(name)).standard_normal(30)
    verdict, size = changes.pop("verdict", "passed"), changes.pop("size", 1000)
    candidate = Candidate(Path(name), dataclasses.replace(spec, **changes), verdict, size)
    rounds = tuple((float(ms * a * b),) for a, b in zip(noise, jitter, strict=True))
    return Measured(candidate=candidate, engine={}, batch=1, first_ms=1, rounds=rounds, peak_rss_bytes=None)


def test_the_fastest_is_recommended_with_its_lead(tiny_spec: ModelSpec) -> None:
    found = choose([measured(tiny_spec, "slow", 2.0), measured(tiny_spec, "fast", 1.0, size=5000)])
    assert found.place == 1
    assert "the fastest" in found.reason and "passed" in found.reason
    assert 1.9 < float(found.reason.split("x the speed")[0].split()[-1]) < 2.1


def test_within_noise_the_smaller_one_is_recommended(tiny_spec: ModelSpec) -> None:
    large = measured(tiny_spec, "large", 1.0, size=5000)
    for small in (
        measured(tiny_spec, "small", 1.015),
        measured(tiny_spec, "smaller", 1.05, jitter=0.5),
    ):
        found = choose([large, small])
        assert found.place == 1 and "within noise" in found.reason
    assert choose([large, measured(tiny_spec, "small", 1.05)]).place == 0  # clear, though the noise is 10 %


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"verdict": "failed"}, "its certificate failed"),
        ({"untrained": True}, "its weights are untrained"),
        ({"verdict": "none"}, "it has no certificate"),
    ],
)
def test_doubtful_bundles_do_not_win_over_others(
    tiny_spec: ModelSpec, changes: dict[str, Any], why: str
) -> None:
    found = choose([measured(tiny_spec, "doubtful.fer", 1.0, **changes), measured(tiny_spec, "sound", 3.0)])
    assert found.place == 1
    assert f"doubtful.fer is faster, but {why}" in found.reason


def test_where_nothing_is_proven_the_reason_says_so(tiny_spec: ModelSpec) -> None:
    untrained = [measured(tiny_spec, name, ms, untrained=True) for name, ms in (("x", 2.0), ("yy", 1.0))]
    found = choose(untrained)
    assert found.place == 1 and "untrained" in found.reason
    failed = choose([measured(tiny_spec, "z", 1.0, verdict="failed")])
    assert failed.place is None and "failed" in failed.reason


def test_percentiles_and_throughput_by_hand(tiny_spec: ModelSpec) -> None:
    one = dataclasses.replace(
        measured(tiny_spec, "x", 1.0), rounds=((1.0, 4.0), (2.0,), (3.0, 10.0)), batch=2
    )
    assert [one.percentile_ms(percent) for percent in (0, 25, 50, 75, 100)] == [1, 2, 3, 4, 10]
    assert one.throughput_per_s == pytest.approx(5 * 2 / 0.020)


def test_an_untrained_bundle_says_so_in_the_table(
    tmp_path: Path, tiny_spec: ModelSpec, tiny_members: dict[str, bytes]
) -> None:
    write_bundle(tmp_path / "u.fer", dataclasses.replace(tiny_spec, untrained=True), tiny_members)
    result = run_command("bench", tmp_path / "u.fer", "--threads", "1")
    assert result.exit_code == 0 and "untrained" in result.stderr
