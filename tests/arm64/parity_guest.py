"""Runs on the emulated processor: `edge-fer parity`, keeping the probabilities of every face as well.

Usage: python parity_guest.py PROBABILITIES.npy BUNDLE [options of edge-fer parity]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_fer.commands import main
from edge_fer.engines import Engine, Outputs
from edge_fer.parity import report


def keep_probabilities(file: Path) -> None:
    """Write what the next run over all faces answers to this file: (N, C) float32, in the data's order."""
    run_all = report.run_all

    def run_and_keep(
        engine: Engine, crops: NDArray[np.uint8], progress: Callable[[int], None] | None = None
    ) -> Outputs:
        outputs = run_all(engine, crops, progress)
        np.save(file, outputs.probabilities)
        return outputs

    report.run_all = run_and_keep


if __name__ == "__main__":
    keep_probabilities(Path(sys.argv[1]))
    sys.argv = ["edge-fer", "parity", *sys.argv[2:]]
    main()
