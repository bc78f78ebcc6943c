"""Measure bundles beside PyTorch eager and the plain path of the tools, all in one interleaved run.

Prints Markdown tables for docs/benchmarks.md. Run as:
python tests/benchmarks/engines.py --network grefel --calibration-data ferplus:D:train BUNDLE...
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import plain_path
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from edge_fer.bench.measure import Candidate
from edge_fer.bench.process import Worker
from edge_fer.bench.profile import Profile, summarise
from edge_fer.bench.worker import peak_rss_bytes
from edge_fer.engines.base import EngineOptions
from edge_fer.errors import EdgeFerError, UsageError
from edge_fer.parity.environment import environment
from edge_fer.tables import progress

if TYPE_CHECKING:
    from calibrate.manifest import CalibrationSet
    from export.source import Source

TURN_MS = 40.0
"""What a turn of one contender takes about; a run that takes longer is a turn."""

MAX_TURN_RUNS = 50
# Threads of an engine that has just run spin for a while: the next contender would share the cores with them.
PAUSE_S = 0.1
PROFILE_RUNS = 20
BUSY = 1.5
PACKAGES = ("torch", "onnxruntime", "openvino", "nncf", "litert-torch", "ai-edge-quantizer", "ai-edge-litert")
COLUMNS = (
    *("contender", "bundle", "p50, ms", "over its engine's fp32", "over eager", "over the plain path"),
    *("graph, MB", "of fp32's size", "peak memory, MB", "kernel share"),
)

Run = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """Something that recognises one face at a time, in a process of its own.

    Attributes:
        what: engine and precision, for people.
        engine: whose fp32 it is compared with.
        precision: fp32, fp16 or int8.
        time: maps a number of runs to the milliseconds of each, after one that is not counted.
        peak: the largest resident set of its process, in bytes; None where the system does not tell.
        profile: where its time goes; None for what has no graph.
        bundle: its name, "" for what is none of ours.
        size_bytes: the files of its graph, None for what has no graph.
    """

    what: str
    engine: str
    precision: str
    time: Callable[[int], list[float]]
    peak: Callable[[], int | None]
    profile: Callable[[], Profile] | None = None
    bundle: str = ""
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """A contender with what was measured of it."""

    contender: Contender
    p50_ms: float
    p90_ms: float
    peak_rss_bytes: int | None
    profile: Profile | None


class Beside:
    """A fresh process for a contender that is no bundle; its program is this file."""

    def __init__(self, stack: ExitStack, load: Callable[..., Run], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self.pool = stack.enter_context(ProcessPoolExecutor(1, context, _load, (load, arguments)))

    def time(self, runs: int) -> list[float]:
        """Return what each run took, in milliseconds, after one that is not counted."""
        return self.pool.submit(_time, runs).result()

    def peak(self) -> int | None:
        """Return the largest resident set of the process so far."""
        return self.pool.submit(peak_rss_bytes).result()


_run: Run


def _load(load: Callable[..., Run], arguments: tuple[object, ...]) -> None:
    global _run
    _run = load(*arguments)


def _time(runs: int) -> list[float]:
    _run()  # what the others have driven out of the caches comes back
    milliseconds = []
    for _ in range(runs):
        started = time.perf_counter()
        _run()
        milliseconds.append(1e3 * (time.perf_counter() - started))
    return milliseconds


def load_eager(network: str | None, threads: int, image: NDArray[np.uint8]) -> Run:
    """Return one run of the float network in PyTorch, from pixels (1, S, S, 3) uint8 to all its outputs."""
    import torch

    from export.source import read_source
    from export.wrapper import FusedGraph

    torch.set_num_threads(threads)
    fused, faces = FusedGraph(read_source(network).network).eval(), torch.from_numpy(image)

    def run() -> object:
        with torch.inference_mode():
            return fused(faces)

    return run


def profile_bundle(path: Path, threads: int) -> Profile:
    """Return where the time of a bundle goes, as `bench --profile` does."""
    with Worker(path, EngineOptions(threads=threads, profile=True), 1) as worker:
        return summarise(worker.profile(1, PROFILE_RUNS))


def check_network(candidates: Sequence[Candidate], source: Source) -> None:
    """Refuse bundles of another network: their ratios would mean nothing."""
    wanted = (source.network.spec.model, source.sha256)
    for one in candidates:
        got = (one.spec.model, one.spec.source.get("checkpoint_sha256"))
        if got != wanted:
            names = [f"{model} ({str(sha256 or 'untrained')[:12]})" for model, sha256 in (wanted, got)]
            raise UsageError(f"{one.path}: expected a bundle of {names[0]}, got {names[1]}: export it again")


def start_bundle(candidate: Candidate, threads: int, stack: ExitStack) -> Contender:
    """Start a bundle in the process that `bench` measures it in."""
    spec, path = candidate.spec, candidate.path
    worker = stack.enter_context(Worker(path, EngineOptions(threads=threads), 1))
    form = [f"{spec.engine} {spec.precision}"]
    form += [] if spec.quantisation == "none" else [spec.quantisation]
    computes = worker.engine.get("precision", "f32")  # OpenVINO's own word, None of the others have one
    form += [] if computes == "f32" else [f"float in {computes}"]
    return Contender(
        what=", ".join(form),
        engine=spec.engine,
        precision=spec.precision,
        time=partial(worker.time, 1),
        peak=worker.peak_rss_bytes,
        profile=partial(profile_bundle, path, threads),
        bundle=path.name,
        size_bytes=candidate.size_bytes,
    )


def start_plain(
    folder: Path, precision: str, threads: int, image: NDArray[np.uint8], stack: ExitStack
) -> Contender:
    """Start a graph of the plain path."""
    graph = folder / f"{precision}.onnx"
    process = Beside(stack, plain_path.load, graph, threads, image)
    return Contender(
        what=f"plain path {precision}",
        engine="plain path",
        precision=precision,
        time=process.time,
        peak=process.peak,
        profile=partial(plain_path.profile, graph, threads, image, PROFILE_RUNS),
        size_bytes=plain_path.size_bytes(graph),
    )


def start_eager(network: str | None, threads: int, image: NDArray[np.uint8], stack: ExitStack) -> Contender:
    """Start the float network in PyTorch."""
    process = Beside(stack, load_eager, network, threads, image)
    return Contender(
        what="PyTorch eager fp32", engine="eager", precision="fp32", time=process.time, peak=process.peak
    )


def measure(contenders: Sequence[Contender], rounds: int) -> list[Measured]:
    """Let the contenders take turns, each round begun by another one, and profile them when all is timed."""
    lengths = [turn_length(one) for one in contenders]
    times: list[list[float]] = [[] for _ in contenders]
    with progress("measuring", rounds) as show:
        for number in range(rounds):
            for turn in range(len(contenders)):
                index = (number + turn) % len(contenders)
                times[index] += contenders[index].time(lengths[index])
                time.sleep(PAUSE_S)
            show(number + 1)
    return [
        Measured(one, *percentiles_ms(milliseconds), one.peak(), one.profile and one.profile())
        for one, milliseconds in zip(contenders, times, strict=True)
    ]


def percentiles_ms(milliseconds: Sequence[float]) -> tuple[float, float]:
    """Return the median and the 90th percentile."""
    p50, p90 = np.percentile(milliseconds, (50, 90))
    return float(p50), float(p90)


def turn_length(contender: Contender) -> int:
    """Return how many runs make a turn."""
    return max(1, min(MAX_TURN_RUNS, round(TURN_MS / max(1e-3, min(contender.time(3))))))


def row(one: Measured, found: Sequence[Measured]) -> tuple[str, ...]:
    """Return the cells of a contender under `COLUMNS`; empty where nothing compares."""
    contender = one.contender
    base = find(found, contender.engine, "fp32")
    plain = find(found, "plain path", contender.precision) if contender.engine == "onnxruntime" else None
    size, base_size = contender.size_bytes, base.contender.size_bytes if base else None
    return (
        contender.what,
        f"`{contender.bundle}`" if contender.bundle else "",
        f"{one.p50_ms:.2f}",
        faster(one, base),
        faster(one, find(found, "eager", "fp32")),
        faster(one, plain),
        f"{size / 1e6:.2f}" if size else "",
        f"{size / base_size:.3f}" if size and base_size else "",
        f"{one.peak_rss_bytes / 1e6:.0f}" if one.peak_rss_bytes else "",
        f"{one.profile.kernel_share:.2f}" if one.profile else "",
    )


def find(found: Sequence[Measured], engine: str, precision: str) -> Measured | None:
    """Return the first contender of an engine and precision, None when there is none."""
    wanted = (engine, precision)
    return next((one for one in found if (one.contender.engine, one.contender.precision) == wanted), None)


def faster(one: Measured, other: Measured | None) -> str:
    """Return how many times as fast as `other` a contender is, by the medians."""
    return "" if other is None or other is one else f"{other.p50_ms / one.p50_ms:.2f}x"


def class_rows(found: Sequence[Measured]) -> list[tuple[str, ...]]:
    """Return a row for each class of operators, the longest first: milliseconds of each."""
    by_class = [{each.name: each.ms for each in one.profile.classes} for one in found if one.profile]
    names = sorted(
        {name for times in by_class for name in times}, key=lambda n: -max(t.get(n, 0) for t in by_class)
    )
    return [(name, *(f"{times[name]:.2f}" if name in times else "" for times in by_class)) for name in names]


def print_report(found: Sequence[Measured], candidates: Sequence[Candidate], faces: CalibrationSet) -> None:
    """Print the tables and what they were made with, as Markdown."""
    print_markdown(COLUMNS, [row(one, found) for one in found])
    profiled = [one.contender.bundle or one.contender.what for one in found if one.profile]
    print("\nMilliseconds per run by class of operators, each contender profiled alone:\n")
    print_markdown(("class", *profiled), class_rows(found))
    digest = faces.sha256()
    hashes = {one.path.name: one.spec.source.get("calibration_sha256") for one in candidates}
    others = [name for name, sha256 in hashes.items() if sha256 not in (None, digest)]
    busy = [one.contender.what for one in found if one.p90_ms > BUSY * one.p50_ms]
    if busy:
        print(f"\nThis machine was busy, p90 is above {BUSY} times the median: {', '.join(busy)}.")
    if others:
        print(f"\nCalibrated on other faces than the plain path: {', '.join(others)}.")


def print_markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for cells in rows:
        print(f"| {' | '.join(cells)} |")


def print_machine(options: argparse.Namespace, faces: CalibrationSet) -> None:
    """Print one paragraph on the machine, the versions, and how the figures were taken."""
    where = environment()
    machine = f"{where['cpu']} ({where['cpu_class']}), {where['cores']} CPUs"
    tools = ", ".join(f"{name} {version(name)}" for name in ("edge-fer", *PACKAGES))
    print(f"{machine}, {where['system']} {where['machine']}; CPython {sys.version.split()[0]}, {tools}.")
    print(
        f"{options.threads} threads, batch 1, medians of {options.rounds} turns of {TURN_MS:.0f} ms or a run."
    )
    print(f"Calibrated on {len(faces.crops)} faces (SHA-256 of their pixels {faces.sha256()[:12]}).\n")


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", type=Path, nargs="*", metavar="BUNDLE")
    parser.add_argument(
        "--network", help="checkpoint or a network's name, as `export` takes it; default: the embedded"
    )
    parser.add_argument("--calibration-data", required=True, help="DATA or a manifest, as `export` takes it")
    parser.add_argument("--samples", type=int, help="calibration faces, default 300")
    parser.add_argument("--threads", type=int, default=2, help="of every contender, default 2")
    parser.add_argument("--rounds", type=int, default=60, help="turns of each contender, default 60")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("runs/engines"),
        help="keeps the plain path's graphs, default runs/engines",
    )
    return parser.parse_args()


def main() -> None:
    """Make what is missing, measure, print."""
    options = read_options()
    from edge_fer.faces import read_data
    from export.data import choose_calibration
    from export.golden import synthetic_samples
    from export.options import ExportOptions
    from export.source import read_source

    try:
        source = read_source(options.network)
        candidates = [Candidate.load(path) for path in options.bundles]
        check_network(candidates, source)
        asked = ExportOptions(calibration_data=options.calibration_data, samples=options.samples)
        faces = choose_calibration(asked, read_data(options.calibration_data), source, None)
        plain = plain_path.make_graphs(source, faces, options.work)
        image = synthetic_samples()[0].crop(source.crop)[None]
        with ExitStack() as stack:
            contenders = [
                start_eager(options.network, options.threads, image, stack),
                *(start_plain(plain, name, options.threads, image, stack) for name in ("fp32", "int8")),
                *(start_bundle(one, options.threads, stack) for one in candidates),
            ]
            found = measure(contenders, options.rounds)
    except EdgeFerError as error:
        raise SystemExit(str(error)) from None
    print_machine(options, faces)
    print_report(found, candidates, faces)


if __name__ == "__main__":
    main()
