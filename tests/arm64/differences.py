"""Prints how far bundles' answers on emulated processors lie from this machine's: for docs/arm64.md.

    python -m tests.arm64.differences FOLDER BUNDLE... [--data DATA] [--cpu cortex-a76]...

FOLDER is made by `python -m tests.arm64.setup`. The faces are the first bundle's golden samples, or with
--data a part of those of its reference: the 64 whose two first classes lie nearest to each other, and every
nineteenth.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_fer.bundle import Bundle
from edge_fer.faces import face_hash, load_crops, read_data
from tests.arm64.answers_guest import answers
from tests.arm64.emulation import CPUS, missing, run

LIMIT_S = 3600
HARDEST, EVERY = 64, 19
GUEST = Path(__file__).with_name("answers_guest.py")
HEADER = """\
| bundle | processor | unlike here | without the hardest | largest difference | unlike float: here, there |
|---|---|---|---|---|---|"""


@dataclass(frozen=True, slots=True)
class Asked:
    """Faces (N, S, S, 3) uint8, the float checkpoint's probabilities (N, C), and which are hard (N,)."""

    crops: NDArray[np.uint8]
    checkpoint: NDArray[np.float32]
    hard: NDArray[np.bool_]


def golden_faces(bundle: Bundle) -> Asked:
    """Return the golden samples; none of them counts as hard."""
    golden = bundle.golden()
    if golden is None:
        sys.exit(f"{bundle.path}: expected golden samples, got none: export it with --golden")
    return Asked(golden.crops, golden.probabilities, np.zeros(len(golden.crops), dtype=bool))


def reference_faces(bundle: Bundle, data: str) -> Asked:
    """Return the hardest faces of the reference and every nineteenth."""
    reference = bundle.reference()
    if reference is None:
        sys.exit(f"{bundle.path}: expected reference outputs, got none: export it with --parity-data")
    second, first = np.sort(reference.probabilities, axis=1)[:, -2:].T
    hard = np.zeros(len(first), dtype=bool)
    hard[np.argsort(first - second)[:HARDEST]] = True
    chosen = np.flatnonzero(hard | (np.arange(len(first)) % EVERY == 0))
    crops = {face_hash(crop): crop for crop in load_crops(read_data(data), bundle.spec.input)}
    lacking = [name for name in reference.hashes[chosen] if name not in crops]
    if lacking:
        sys.exit(
            f"{data}: expected the faces of the reference, {reference.name}; {len(lacking)} are not there"
        )
    of_reference = np.stack([crops[name] for name in reference.hashes[chosen]])
    return Asked(of_reference, reference.probabilities[chosen], hard[chosen])


def unlike(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> str:
    """Count the faces whose labels differ: `3 of 251`."""
    return f"{(ours.argmax(axis=1) != theirs.argmax(axis=1)).sum()} of {len(ours)}"


def row(name: str, cpu: str, asked: Asked, here: NDArray[np.float32], there: NDArray[np.float32]) -> str:
    """Return a bundle's line for a processor."""
    cells = (
        name,
        cpu,
        unlike(there, here),
        unlike(there[~asked.hard], here[~asked.hard]),
        f"{np.abs(there - here).max():.2g}",
        f"{unlike(here, asked.checkpoint)}, {unlike(there, asked.checkpoint)}",
    )
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask every bundle on every processor and print the table."""
    names = [cpu.name for cpu in CPUS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--data", help="the faces of the first bundle's reference")
    parser.add_argument("--cpu", action="append", choices=names, help="may come again; all when left out")
    given = parser.parse_args(arguments)
    folder, paths = given.folder.resolve(), [path.resolve() for path in given.bundles]
    reason = missing(folder)
    if reason:
        parser.error(reason)
    first = Bundle.load(paths[0])
    asked = reference_faces(first, given.data) if given.data else golden_faces(first)
    here = answers(paths, asked.crops)
    print(HEADER)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        np.save(place / "crops.npy", asked.crops)
        for cpu in (cpu for cpu in CPUS if cpu.name in (given.cpu or names)):
            done = run(folder, cpu, GUEST, "there.npz", "crops.npy", *paths, cwd=place, limit_s=LIMIT_S)
            if done.returncode != 0:
                last = (done.stderr.strip() or "no output").splitlines()[-1]
                sys.exit(f"{cpu.name}: no answers, exit code {done.returncode}: {last}")
            there = np.load(place / "there.npz")
            for bundle, ours in here.items():
                print(row(bundle, cpu.name, asked, ours, there[bundle]), flush=True)


if __name__ == "__main__":
    main()
