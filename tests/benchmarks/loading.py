"""Measure how many faces a second loading gives by itself: decoding, the cache, batches from it.

Run as: python tests/benchmarks/loading.py FOLDER [--faces N] [--sizes 64 112 224]

FOLDER holds pictures (png, jpg), at any depth. Batches are what `training.batches` makes before it augments:
rows of the mapped cache in the order of an epoch, sent as bytes to the GPU where there is one, floats there.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from edge_fer.images import SUFFIXES, read_image
from edge_fer.preprocess import CropSpec, crop_whole
from training.data.cache import cached, decode_all
from training.data.order import batches, epoch_order
from training.devices import choose_device

BATCH = 128
REPEATS = 5


def seconds(call: Callable[[], object], repeats: int = 1) -> float:
    """Return the median wall time of `call`."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def nothing(*_: object) -> None:
    """Take what is reported and say nothing."""


def row(paths: list[Path], size: int, folder: Path, device: torch.device) -> str:
    """Return a line of the table."""
    crop, count = CropSpec(size=size, margin=0.0), len(paths)
    single = seconds(lambda: [crop_whole(read_image(path), crop) for path in paths])
    threads = seconds(lambda: decode_all(paths, crop, nothing))
    build = seconds(lambda: cached(paths, crop, folder, nothing, nothing))
    opened = seconds(lambda: cached(paths, crop, folder, nothing, nothing), REPEATS)
    crops = torch.from_numpy(cached(paths, crop, folder, nothing, nothing).pixels)
    order = epoch_order(torch.zeros(count), 0, 0)
    used = count // BATCH * BATCH

    def gather() -> None:
        for _, rows in batches(order, BATCH, 0):
            crops[rows].to(device).permute(0, 3, 1, 2).float() / 255.0
        if device.type == "cuda":
            torch.cuda.synchronize()

    figures = (
        count / single,
        count / threads,
        count / build,
        used / seconds(gather, REPEATS),
    )
    return f"| {size} | {' | '.join(f'{figure:,.0f}' for figure in figures)} | {1000 * opened:.1f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--faces", type=int, default=4096)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 112, 224])
    options = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted(path for path in options.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    paths = paths[: options.faces]
    if len(paths) < BATCH:
        parser.error(f"expected {BATCH} pictures or more in {options.folder}, got {len(paths)}")
    device = torch.device(choose_device("auto"))
    print(
        f"{len(paths)} faces, {os.cpu_count()} cores, {device}, batches of {BATCH} on one thread, faces/s:\n"
    )
    print("| crop | decoded by one | by all cores | into the cache | batches from it | opened, ms |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for size in options.sizes:
            print(row(paths, size, Path(temporary), device))


if __name__ == "__main__":
    main()
