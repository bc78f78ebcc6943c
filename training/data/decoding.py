"""Pictures to crops on all cores, in order; what cannot be read is told, not thrown."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import InputError
from edge_fer.images import read_image
from edge_fer.preprocess import CropSpec, crop_whole

BLOCK = 1024  # faces that are under way at once: a million would be as many waiting tasks


def decode(paths: Sequence[Path], crop: CropSpec) -> Iterator[NDArray[np.uint8] | InputError]:
    """Yield the crop (S, S, 3) uint8 RGB 0..255 of each picture in turn, or why it cannot be had.

    Threads are enough: decoders and resampling leave Python's lock alone.
    """
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for start in range(0, len(paths), BLOCK):
            yield from pool.map(partial(_one, crop=crop), paths[start : start + BLOCK])


def _one(path: Path, crop: CropSpec) -> NDArray[np.uint8] | InputError:
    try:
        return crop_whole(read_image(path), crop)
    except InputError as error:
        return error
