"""Runs on the emulated processor: what bundles answer on crops, one face at a time and on one thread.

Usage: python answers_guest.py ANSWERS.npz CROPS.npy BUNDLE…
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_fer.bundle import Bundle
from edge_fer.engines import EngineOptions, load_engine


def answers(bundles: Sequence[Path], crops: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Return every bundle's `probabilities` (N, C) float32 by its name, for crops (N, S, S, 3) uint8 RGB."""
    found = {}
    for path in bundles:
        engine = load_engine(Bundle.load(path), EngineOptions(threads=1))
        found[path.stem] = np.concatenate([engine.run(crop[None]).probabilities for crop in crops])
    return found


if __name__ == "__main__":
    output, faces, *paths = map(Path, sys.argv[1:])
    np.savez(output, **answers(paths, np.load(faces)))
