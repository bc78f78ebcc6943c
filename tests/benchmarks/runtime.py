"""Measure the runtime on this machine: import, one photo from process start to result, memory, predict.

Prints a Markdown table for docs/benchmarks.md. Nothing heavy is imported until the processes have been
measured: on Linux a child's peak memory is never below its parent's.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_fer import Recognizer

PHOTO = Path(__file__).resolve().parents[2] / "examples" / "astronaut.jpg"
PACKAGES = ("onnxruntime", "numpy", "opencv-python-headless", "pillow", "typer")
ENGINES = ("onnxruntime", "openvino", "ai_edge_litert", "torch", "onnx", "cv2")
IMPORT_CODE = "import edge_fer"
PHOTO_CODE = "import sys; sys.argv[0] = 'edge-fer'; from edge_fer.commands import main; main()"
WARM_UP = 20


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that has ended: wall time from its start and its largest resident set."""

    wall_ms: float
    peak_rss_bytes: int


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    what: str
    measured: str
    goal: str
    met: bool | None = None


def run_process(*arguments: str) -> Finished:
    """Run this interpreter with `arguments`, its output discarded."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall_ms = (time.perf_counter() - started) * 1e3
    process.returncode = os.waitstatus_to_exitcode(status)
    with process:
        complaint = process.stderr.read().decode() if process.stderr else ""
    if process.returncode != 0:
        raise SystemExit(f"expected exit code 0 of {arguments}, got {process.returncode}: {complaint}")
    return Finished(wall_ms, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def check_no_engine_on_import() -> None:
    """Stop when `import edge_fer` brings an engine, torch or OpenCV with it."""
    code = f"{IMPORT_CODE}, sys; sys.exit(' '.join(set({ENGINES!r}).intersection(sys.modules)) or 0)"
    run_process("-c", code)


def measure_import(runs: int) -> list[Row]:
    """Time `import edge_fer` and an empty interpreter in turn."""
    check_no_engine_on_import()
    bare, full = [], []
    for _ in range(runs):
        bare.append(run_process("-c", "pass").wall_ms)
        full.append(run_process("-c", IMPORT_CODE).wall_ms)
    bare_ms, full_ms = statistics.median(bare), statistics.median(full)
    share = f"{full_ms - bare_ms:.1f} ms ({full_ms:.1f} ms, bare interpreter {bare_ms:.1f} ms)"
    return [Row("`import edge_fer`, no engine imported", share, "< 150 ms", full_ms - bare_ms < 150)]


def measure_photo(runs: int) -> list[Row]:
    """Time one photo from process start to process end, warm file cache, and take its peak memory."""
    command = ("-c", PHOTO_CODE, "infer", str(PHOTO))
    run_process(*command)
    finished = [run_process(*command) for _ in range(runs)]
    wall_ms = statistics.median(each.wall_ms for each in finished)
    peak_mb = max(each.peak_rss_bytes for each in finished) / 1e6
    return [
        Row("one photo, process start to end", f"{wall_ms:.0f} ms", "< 1000 ms", wall_ms < 1000),
        Row("one photo, peak resident memory", f"{peak_mb:.0f} MB", "< 250 MB", peak_mb < 250),
    ]


def time_in_turn(first: Callable[[], object], second: Callable[[], object], runs: int) -> tuple[float, float]:
    """Return the median times in ms of two calls that take turns, after a warm-up of both."""
    times: tuple[list[float], list[float]] = ([], [])
    for run in range(runs + WARM_UP):
        for call, kept in zip((first, second), times, strict=True):
            started = time.perf_counter()
            call()
            if run >= WARM_UP:
                kept.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times[0]), statistics.median(times[1])


def measure_predict(recognizer: Recognizer, runs: int) -> list[Row]:
    """Time `Recognizer.predict` on a ready crop against the raw session on the same array."""
    import numpy as np

    from edge_fer.images import read_image

    crop = recognizer.analyze(read_image(PHOTO)).faces[0].crop
    batch = np.ascontiguousarray(crop[None])
    session = recognizer.engine.session  # type: ignore[attr-defined]
    predict_ms, raw_ms = time_in_turn(
        lambda: recognizer.predict(crop), lambda: session.run(None, {"image": batch}), runs
    )
    over_ms = predict_ms - raw_ms
    share = f"{predict_ms:.3f} ms; +{over_ms:.3f} ms, x{predict_ms / raw_ms:.3f}"
    return [
        Row("raw ONNX Runtime session, one crop", f"{raw_ms:.3f} ms", ""),
        Row("`Recognizer.predict`, one crop", share, "+5 % or +0.2 ms", over_ms <= max(0.2, 0.05 * raw_ms)),
    ]


def measure_beside(recognizer: Recognizer, other: Path, threads: int | None, runs: int) -> list[Row]:
    """Time `predict` of another bundle and of the embedded one in turn, on the same crop."""
    from edge_fer import Recognizer
    from edge_fer.images import read_image

    beside = Recognizer.load(other, threads=threads)
    crop = recognizer.analyze(read_image(PHOTO)).faces[0].crop
    ours_ms, theirs_ms = time_in_turn(lambda: recognizer.predict(crop), lambda: beside.predict(crop), runs)
    names = [f"{each.spec.precision} on {each.engine.name}" for each in (recognizer, beside)]
    what = f"`predict`, {beside.spec.model}: {names[1]} and {names[0]} in turn"
    return [Row(what, f"{theirs_ms:.3f} ms, {ours_ms:.3f} ms: x{theirs_ms / ours_ms:.2f}", "")]


def processor() -> str:
    """Return the processor's name, from the kernel where it tells."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} CPUs"


def print_report(rows: list[Row], threads: int | None, runs: int) -> None:
    """Print the machine and the table, as Markdown."""
    import edge_fer

    versions = ", ".join(
        [f"edge-fer {edge_fer.__version__}", *(f"{name} {version(name)}" for name in PACKAGES)]
    )
    pool = "the engine's default" if threads is None else str(threads)
    system = f"{platform.system()} {platform.machine()}, CPython {platform.python_version()}"
    print(f"{processor()}, {system}; {versions}.")
    print(f"Threads: {pool}. Medians of {runs} processes and {runs * 20} calls.\n")
    print("| what | measured | goal | met |\n|---|---|---|---|")
    for row in rows:
        met = {None: "", True: "yes", False: "no"}[row.met]
        print(f"| {row.what} | {row.measured} | {row.goal} | {met} |")


def main() -> None:
    """Measure, in the order that keeps this process small while others are weighed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runs", type=int, default=15, help="processes per figure; calls are 20 times as many"
    )
    parser.add_argument(
        "--threads", type=int, help="threads of the engine for predict; default: its own choice"
    )
    parser.add_argument(
        "--beside", type=Path, nargs="*", default=[], help="bundles, each timed in turn with the embedded one"
    )
    options = parser.parse_args()
    rows = [*measure_import(options.runs), *measure_photo(options.runs)]

    from edge_fer import Recognizer

    recognizer = Recognizer.load(threads=options.threads)
    rows += measure_predict(recognizer, options.runs * 20)
    for other in options.beside:
        rows += measure_beside(recognizer, other, options.threads, options.runs * 20)
    print_report(rows, options.threads, options.runs)


if __name__ == "__main__":
    main()
