"""Measure one 64x64 crop out of a 12-megapixel photo, for faces of several sizes; prints a Markdown table.

Run as: python tests/benchmarks/preprocess.py
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from edge_fer.preprocess import FERPLUS_TEMPLATE, CropSpec, crop_face, crop_whole

REPEATS = 50


def median_ms(call: Callable[[], object]) -> float:
    """Return the median wall time of `call` over REPEATS runs, in milliseconds."""
    times: list[float] = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def main() -> None:
    """Print the table."""
    photo = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), dtype=np.uint8)
    spec = CropSpec(size=64, margin=0.0, alignment="five-point", template=FERPLUS_TEMPLATE)
    turn = np.array([[0.97, -0.24], [0.24, 0.97]])
    print("| face, pixels | margin crop, ms | aligned crop, ms |")
    print("|---|---|---|")
    for side in (50, 100, 200, 400, 800, 1600):
        box = (300.0, 200.0, float(side), float(side))
        landmarks = (np.array(FERPLUS_TEMPLATE) @ turn.T * side + 600).astype(np.float32)
        margin = median_ms(lambda box=box: crop_face(photo, box, None, spec))
        aligned = median_ms(lambda box=box, marks=landmarks: crop_face(photo, box, marks, spec))
        print(f"| {side} | {margin:.2f} | {aligned:.2f} |")
    small = np.ascontiguousarray(photo[:48, :48])
    print(f"\nA whole 48x48 picture to 64x64: {median_ms(lambda: crop_whole(small, spec)):.2f} ms")


if __name__ == "__main__":
    main()
