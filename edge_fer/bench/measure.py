"""Measures bundles side by side: each in a process of its own, in turns, so that noise hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edge_fer.bench.process import Worker
from edge_fer.bench.profile import Profile, summarise
from edge_fer.bundle import Bundle
from edge_fer.engines import EngineOptions
from edge_fer.errors import EngineError
from edge_fer.spec import ModelSpec

STARTS = 3
"""Fresh processes per bundle; their median is the time to the first inference."""

MIN_ROUNDS = 20
MAX_ROUNDS = 100
TURN_MS = 40.0
"""What a turn of one bundle takes about; a run that takes longer is a turn."""

SECONDS_PER_BUNDLE = 3.0
BATCHES = (1, 4, 8)
_BATCH_RUNS = 5
_MAX_TURN_RUNS = 50
_PROFILE_RUNS = 50
_PROFILE_MIN_RUNS = 10
_PROFILE_MS = 3000.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A bundle to measure, without its bytes.

    Attributes:
        path: as the user named it.
        spec: what the bundle says of its model.
        verdict: of its certificate: passed, failed, undecided or none.
        size_bytes: the files of the graph together, as they lie in the bundle.
    """

    path: Path
    spec: ModelSpec
    verdict: str
    size_bytes: int

    @classmethod
    def load(cls, path: Path) -> Candidate:
        """Read and verify a bundle.

        Raises:
            BundleError: it cannot be trusted.
        """
        bundle = Bundle.load(path)
        size = sum(bundle.members[name].size for name in bundle.spec.graph_files)
        return cls(path, bundle.spec, bundle.verdict, size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of one bundle.

    Attributes:
        candidate: which bundle.
        engine: what the engine says of itself.
        batch: faces per run.
        first_ms: from a fresh process's first line to its first answer, median of `STARTS`.
        rounds: milliseconds of every run, by round; the same rounds of all bundles lie beside each other.
        peak_rss_bytes: largest resident set of a process that loaded the bundle and ran it at `batch`, engine
            included; None where the system does not tell.
        throughput: faces per second by batch; empty when that was not asked for.
        profile: time by class of nodes; None when that was not asked for.
    """

    candidate: Candidate
    engine: Mapping[str, object]
    batch: int
    first_ms: float
    rounds: tuple[tuple[float, ...], ...]
    peak_rss_bytes: int | None
    throughput: Mapping[int, float] = field(default_factory=dict)
    profile: Profile | None = None

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of all runs, in milliseconds."""
        return float(np.percentile(np.concatenate(self.rounds), percent))

    @property
    def throughput_per_s(self) -> float:
        """Faces per second over all runs at `batch`."""
        milliseconds = np.concatenate(self.rounds)
        return float(1e3 * self.batch * len(milliseconds) / milliseconds.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What the user asked `bench` for.

    Attributes:
        engine: engine, threads, device and provider of every bundle.
        batch: faces per run.
        batches: measure the throughput by batch, too.
        profile: tell the time by class of nodes, too.
    """

    engine: EngineOptions = field(default_factory=EngineOptions)
    batch: int = 1
    batches: bool = False
    profile: bool = False


def measure(
    candidates: Sequence[Candidate],
    options: BenchOptions,
    complain: Callable[[EngineError], None],
    progress: Callable[[int], None],
) -> list[Measured]:
    """Measure bundles side by side.

    Args:
        candidates: the bundles.
        options: how.
        complain: called for a bundle that does not load, which is left out, and for a profile that fails.
        progress: called with the percentage done so far.

    Raises:
        EngineError: an engine fails on a bundle that it has loaded.
    """
    with ExitStack() as stack:
        workers, first_ms, candidates = _start(candidates, options, stack, complain)
        if not workers:
            return []
        progress(20)
        rounds = _take_turns(workers, options.batch, lambda share: progress(20 + round(50 * share)))
        peaks = [worker.peak_rss_bytes() for worker in workers]  # before other batches
        throughput = _throughput(workers, options) if options.batches else [{} for _ in workers]
        progress(85)
        found = [
            Measured(
                candidate=candidate,
                engine=worker.engine,
                batch=options.batch,
                first_ms=first,
                rounds=turns,
                peak_rss_bytes=peak,
                throughput=by_batch,
            )
            for candidate, worker, first, turns, peak, by_batch in zip(
                candidates, workers, first_ms, rounds, peaks, throughput, strict=True
            )
        ]
    if options.profile:
        found = [replace(one, profile=_profile(one, options, complain)) for one in found]
    progress(100)
    return found


def _start(
    candidates: Sequence[Candidate],
    options: BenchOptions,
    stack: ExitStack,
    complain: Callable[[EngineError], None],
) -> tuple[list[Worker], list[float], list[Candidate]]:
    """Start every bundle several times in turn.

    Returns:
        The last processes, the median first times, and the candidates that they are of.
    """
    first: dict[int, list[float]] = {index: [] for index in range(len(candidates))}
    workers: dict[int, Worker] = {}
    for start in range(STARTS):
        for index in _rotated(len(candidates), start):
            if index not in first:
                continue
            try:
                worker = Worker(candidates[index].path, options.engine, options.batch)
            except EngineError as error:
                complain(error)
                del first[index]
                continue
            first[index].append(worker.first_ms)
            if start < STARTS - 1:
                worker.close()
            else:
                workers[index] = stack.enter_context(worker)
    loaded = sorted(first)
    return (
        [workers[index] for index in loaded],
        [float(np.median(first[index])) for index in loaded],
        [candidates[index] for index in loaded],
    )


def _take_turns(
    workers: Sequence[Worker], batch: int, progress: Callable[[float], None]
) -> list[tuple[tuple[float, ...], ...]]:
    """Let each bundle run for about `TURN_MS`, then the next, and start every round with another one."""
    lengths = [_turn_length(worker, batch) for worker in workers]
    rounds: list[list[tuple[float, ...]]] = [[] for _ in workers]
    budget = SECONDS_PER_BUNDLE * len(workers)
    started = time.monotonic()
    for number in range(MAX_ROUNDS):
        spent = (time.monotonic() - started) / budget
        if number >= MIN_ROUNDS and spent >= 1:
            break
        for index in _rotated(len(workers), number):
            rounds[index].append(tuple(workers[index].time(batch, lengths[index])))
        progress(min(1.0, spent, number / MIN_ROUNDS))
    return [tuple(turns) for turns in rounds]


def _turn_length(worker: Worker, batch: int) -> int:
    """Return how many runs make a turn."""
    return max(1, min(_MAX_TURN_RUNS, round(TURN_MS / max(1e-3, min(worker.time(batch, 3))))))


def _throughput(workers: Sequence[Worker], options: BenchOptions) -> list[dict[int, float]]:
    """Measure faces per second by batch, in turns as well."""
    found: list[dict[int, float]] = [{} for _ in workers]
    for batch in sorted({*BATCHES, options.batch}):
        times: list[list[float]] = [[] for _ in workers]
        for number in range(_BATCH_RUNS):
            for index in _rotated(len(workers), number):
                times[index] += workers[index].time(batch, 1)
        for index, milliseconds in enumerate(times):
            found[index][batch] = 1e3 * batch / float(np.median(milliseconds))
    return found


def _profile(
    measured: Measured, options: BenchOptions, complain: Callable[[EngineError], None]
) -> Profile | None:
    """Profile a bundle in a process of its own, as recording slows the runs; None when that fails."""
    runs = int(min(_PROFILE_RUNS, max(_PROFILE_MIN_RUNS, _PROFILE_MS / measured.percentile_ms(50))))
    try:
        with Worker(measured.candidate.path, replace(options.engine, profile=True), options.batch) as worker:
            return summarise(worker.profile(options.batch, runs))
    except EngineError as error:
        complain(error)
        return None


def _rotated(count: int, start: int) -> Iterator[int]:
    return ((start + index) % count for index in range(count))
