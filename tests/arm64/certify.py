"""Makes a bundle's certificates for emulated processors, and compares their answers with this machine's.

    python -m tests.arm64.certify FOLDER BUNDLE --data DATA --output DIR [--cpu cortex-a72]...

FOLDER is made by `python -m tests.arm64.setup`. DIR gets a folder per processor with parity.json, .md and
.html and the probabilities of every face; `here` is this machine. Exit code 3: a gate failed somewhere.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_fer.parity.documents import Json, place_of
from tests.arm64.emulation import CPUS, Cpu, missing, run

LIMIT_S = 4 * 3600
GUEST = Path(__file__).with_name("parity_guest.py")
ROOT = Path(__file__).resolve().parents[2]
HERE = "here"


def compare(folder: Path, cpu: Cpu | None, bundle: Path, data: str, place: Path) -> Json | None:
    """Run parity into a folder, on an emulated processor or, without one, on this machine; return the report.

    None, and a line, when there is none: the run failed.
    """
    place.mkdir(parents=True, exist_ok=True)
    # One thread: others wait in loops, which an emulator is slow at.
    options = ["--data", data, "--output", place, "--threads", "1"]
    arguments = [GUEST, place / "probabilities.npy", bundle, *options]
    started = time.monotonic()
    if cpu is None:
        command = [sys.executable, *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    else:
        done = run(folder, cpu, *arguments, cwd=place, limit_s=LIMIT_S)
    name = HERE if cpu is None else cpu.name
    print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    if done.returncode not in (0, 3):
        last = (done.stderr.strip() or "no output").splitlines()[-1]
        print(f"{name}: no report, exit code {done.returncode}: {last}", file=sys.stderr, flush=True)
        return None
    report: Json = json.loads((place / "parity.json").read_text(encoding="utf-8"))
    return report


def row(report: Json, place: Path, here: Path) -> str:
    """Return a processor's line of the table: against the float checkpoint, then against this machine."""
    ours, theirs = (np.load(folder / "probabilities.npy") for folder in (place, here))
    changed = int((ours.argmax(axis=1) != theirs.argmax(axis=1)).sum())
    differences = np.abs(np.subtract(ours, theirs, dtype=np.float64)).max(axis=1)
    figures = report["figures"]
    assert isinstance(figures, dict)
    return (
        f"| {place_of(report)} | {report['verdict']} | {figures['accuracy']:.4f} | {figures['flips']} | "
        f"{changed} of {len(ours)} ({changed / len(ours):.2%}) | {(differences > 0).mean():.0%} | "
        f"{differences.max():.2g} |"
    )


HEADER = """\
| processor | verdict | accuracy | unlike float | labels unlike here | probabilities unlike here | largest |
|---|---|---|---|---|---|---|"""


def main(arguments: Sequence[str] | None = None) -> int:
    names = [cpu.name for cpu in CPUS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument(
        "--data", required=True, help="the faces of the bundle's reference, or a part of them"
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cpu", action="append", choices=names, help="may come again; all when left out")
    given = parser.parse_args(arguments)
    folder, bundle, output = given.folder.resolve(), given.bundle.resolve(), given.output.resolve()
    reason = missing(folder)
    if reason:
        parser.error(reason)
    chosen = [cpu for cpu in CPUS if cpu.name in (given.cpu or names)]
    lines, worst = [], 0
    for cpu in (None, *chosen):
        place = output / (HERE if cpu is None else cpu.name)
        report = compare(folder, cpu, bundle, given.data, place)
        if report is None:
            return 1
        worst = 3 if report["verdict"] == "failed" else worst
        lines.append(row(report, place, output / HERE))
    print("\n".join((HEADER, *lines)))
    return worst


if __name__ == "__main__":
    sys.exit(main())
