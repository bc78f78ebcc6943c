"""Show where the time goes before and after the rewrites: a per-operator profile of both exports.

Exports a network twice for one target, as it is and rewritten, in fp32 and in static int8 on the same faces,
and prints a Markdown table for docs/int8.md: milliseconds and share by class of operators.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from edge_fer.bench.process import Worker
from edge_fer.bench.profile import KERNELS, Profile, summarise
from edge_fer.bundle import write_bundle
from edge_fer.engines import EngineOptions
from export import rewrites
from export.certify import certify
from export.options import ExportOptions

LISTS = {"onnx": "ONNX", "openvino": "OPENVINO", "tflite": "TFLITE"}
RUNS = 40


def profile(options: ExportOptions, folder: Path, threads: int) -> Profile:
    """Export and profile in a process of its own."""
    exported = certify(options)
    path = folder / f"{options.precision}.fer"
    write_bundle(path, exported.spec, exported.members)
    with Worker(path, EngineOptions(threads=threads, profile=True), 1) as worker:
        return summarise(worker.profile(1, RUNS))


def main() -> None:
    """Export, profile, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", help="a checkpoint or a network's name")
    parser.add_argument("--target", choices=tuple(LISTS), required=True)
    parser.add_argument("--calibration-data", required=True)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    found: dict[str, Profile] = {}
    chosen = getattr(rewrites, LISTS[asked.target])
    for state, changes in (("before", ()), ("after", chosen)):
        setattr(rewrites, LISTS[asked.target], changes)
        for precision in ("fp32", "int8"):
            options = ExportOptions(
                checkpoint=asked.network,
                target=asked.target,
                precision=precision,
                calibration_data=asked.calibration_data if precision == "int8" else None,
                samples=asked.samples,
                golden="synthetic",
            )
            with tempfile.TemporaryDirectory() as folder:
                found[f"{precision} {state}"] = profile(options, Path(folder), asked.threads)
    print_table(asked.target, found)


def print_table(target: str, found: dict[str, Profile]) -> None:
    """Print one row for each class of operators, one column for each profile."""
    cells = {
        (column, one.name): f"{one.ms:.2f} ({one.share:.0%})"
        for column, profile in found.items()
        for one in profile.classes
    }
    names = sorted({name for _, name in cells}, key=lambda name: (name not in KERNELS, name))
    print(f"| {target}, ms a face (share) | {' | '.join(found)} |")
    print("|---" * (1 + len(found)) + "|")
    for name in names:
        print(f"| {name} | {' | '.join(cells.get((column, name), '') for column in found)} |")
    print(f"| all nodes | {' | '.join(f'{profile.total_ms:.1f}' for profile in found.values())} |")
    print(f"| kernel share | {' | '.join(f'{profile.kernel_share:.2f}' for profile in found.values())} |")


if __name__ == "__main__":
    main()
