"""Drawn faces to calibrate on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from edge_fer.images import encode_png

pytest.importorskip("onnx")


def draw_faces(folder: Path, counts: Mapping[str, int], seed: int) -> Path:
    """Write seeded noise as a folder per class: 24-pixel PNG files, all different."""
    generator = np.random.default_rng(seed)
    for label, count in counts.items():
        (folder / label).mkdir(parents=True)
        for number in range(count):
            image = generator.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            (folder / label / f"{number:03}.png").write_bytes(encode_png(image))
    return folder
