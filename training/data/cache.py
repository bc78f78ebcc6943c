"""Decoded crops on disk: one .npy of all crops of a set, found by what its pictures are, mapped into memory.

Labels are not in it: they are read with the set, so that a corrected list needs no decoding.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import InputError
from edge_fer.output import temporary_name, write_text
from edge_fer.preprocess import CropSpec
from training.data.decoding import decode

FORMAT = "edge-fer-crops-1"
SAMPLES = 64  # rows whose bytes are checked; all of them would mean reading the whole file at every start


@dataclass(frozen=True, slots=True)
class Crops:
    """Decoded faces.

    Attributes:
        pixels: (N, S, S, 3) uint8 RGB 0..255; black where a picture cannot be read.
        bad: why, by row of the pictures that cannot be read.
    """

    pixels: NDArray[np.uint8]
    bad: dict[int, str]


Report = Callable[[str], None]
Advance = Callable[[int], None]


def decode_all(paths: Sequence[Path], crop: CropSpec, advance: Advance) -> Crops:
    """Decode pictures into memory; `advance` is told how many are done."""
    pixels = np.zeros((len(paths), crop.size, crop.size, 3), np.uint8)
    bad: dict[int, str] = {}
    for row, got in enumerate(decode(paths, crop)):
        if isinstance(got, InputError):
            bad[row] = str(got)
        else:
            pixels[row] = got
        advance(row + 1)
    return Crops(pixels, bad)


def cached(paths: Sequence[Path], crop: CropSpec, folder: Path, advance: Advance, report: Report) -> Crops:
    """Return the crops of pictures from the cache, decoding them into it where they are not.

    Args:
        paths: the pictures.
        crop: how they are cut.
        folder: of the cache; made if it is not there. Its files may be deleted at any time.
        advance: is told how many faces are decoded.
        report: is told in one line why a file of the cache is made anew.

    Returns:
        Crops that are mapped, not read: a set may be larger than memory. Writing to them changes no file.

    Raises:
        InputError: the cache cannot be written.
    """
    key = cache_key(paths, crop)
    shape = (len(paths), crop.size, crop.size, 3)
    array, facts = folder / f"{key}.npy", folder / f"{key}.json"
    if facts.exists():
        try:
            return _open(array, facts, shape)
        except (KeyError, OSError, TypeError, ValueError, RecursionError) as error:
            report(f"{array}: damaged ({error}); the pictures are decoded again")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _build(array, facts, paths, crop, advance)
        return _open(array, facts, shape)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{array}: the cache of decoded faces cannot be written: {reason}; {_size(shape)} are needed"
        ) from None


def cache_key(paths: Sequence[Path], crop: CropSpec) -> str:
    """Return what the crops depend on as a hash: each picture's path, size and time, the crop, the tools."""
    digest = hashlib.sha256(f"{FORMAT} {crop} {version('pillow')} {version('numpy')}".encode())
    for path in paths:
        try:
            found = path.stat()
            state = (found.st_size, found.st_mtime_ns)
        except OSError:
            state = (-1, -1)  # what reading it says is kept as for any picture that cannot be read
        digest.update(f"{path.resolve()}\0{state}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def _header(shape: tuple[int, ...]) -> bytes:
    buffer = BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _build(array: Path, facts: Path, paths: Sequence[Path], crop: CropSpec, advance: Advance) -> None:
    shape = (len(paths), crop.size, crop.size, 3)
    bad: dict[int, str] = {}
    black = bytes(crop.size * crop.size * 3)
    temporary = temporary_name(array)
    try:
        # Written, not mapped: a disk that is full is an error then, and not the end of the process.
        with temporary.open("wb") as file:
            file.write(_header(shape))
            for row, got in enumerate(decode(paths, crop)):
                if isinstance(got, InputError):
                    bad[row] = str(got)
                    file.write(black)
                else:
                    file.write(got.tobytes())
                advance(row + 1)
            file.flush()
            os.fsync(file.fileno())
        facts.unlink(missing_ok=True)
        os.replace(temporary, array)
    finally:
        temporary.unlink(missing_ok=True)
    pixels = np.load(array, mmap_mode="r", allow_pickle=False)
    content = {"format": FORMAT, "shape": list(shape), "bad": sorted(bad.items()), "rows": _sampled(pixels)}
    write_text(facts, json.dumps({"sha256": _digest(content), "content": content}))


def _open(array: Path, facts: Path, shape: tuple[int, ...]) -> Crops:
    """Map a file of the cache that is what it says.

    Raises:
        ValueError: it is not; so do OSError, KeyError, TypeError and RecursionError.
    """
    read = json.loads(facts.read_text(encoding="utf-8"))
    content = read["content"]
    if read["sha256"] != _digest(content):
        raise ValueError("its description has changed")
    if content["format"] != FORMAT or content["shape"] != list(shape):
        raise ValueError("its description is of other pictures")
    header = _header(shape)
    with array.open("rb") as file:
        if file.read(len(header)) != header or array.stat().st_size != len(header) + int(np.prod(shape)):
            raise ValueError("its size or header is wrong")
    pixels = np.memmap(array, np.uint8, mode="c", offset=len(header), shape=shape)
    if content["rows"] != _sampled(pixels):
        raise ValueError("its pixels have changed")
    return Crops(pixels, {int(row): str(reason) for row, reason in content["bad"]})


def _sampled(pixels: NDArray[np.uint8]) -> str:
    rows = np.unique(np.linspace(0, len(pixels) - 1, SAMPLES).astype(int))
    return hashlib.sha256(b"".join(pixels[row].tobytes() for row in rows)).hexdigest()


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _size(shape: tuple[int, ...]) -> str:
    return f"{int(np.prod(shape)) / 1e9:.2f} GB"
