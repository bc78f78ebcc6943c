"""Fixtures of the training tests: one thread, torch's global switches put back, a tiny data set of noise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_fer.images import write_image

CLASSES = ("neutral", "happiness", "surprise")
PER_CLASS = {"train": 24, "valid": 6}


@pytest.fixture(autouse=True)
def quiet_torch() -> Iterator[None]:
    """Run on one thread from a known seed; undo what a training run sets for the whole process."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="session")
def noise_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train/ and valid/: 32-pixel faces of noise, 24 and 6 of each of three classes."""
    root = tmp_path_factory.mktemp("noise")
    generator = np.random.default_rng(7)
    for split, count in PER_CLASS.items():
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 96, (32, 32, 3)) + 64 * label
                write_image(folder / f"{number:02d}.png", pixels.astype(np.uint8))
    return root
