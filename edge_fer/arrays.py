"""Named arrays <-> the bytes of an .npz file: the same bytes for the same arrays, and no pickle ever.

Knows the zip and .npy formats and how to distrust them. Does not know what the arrays mean.
"""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from edge_fer.errors import BundleError

_TIMESTAMP = (1980, 1, 1, 0, 0, 0)  # the zip format's epoch, so that bytes depend on the arrays alone
_MAX_BYTES = 1 << 30
_MAX_RATIO = 100  # other tools may compress; a blank picture shrinks well, a bomb shrinks more
_FREE_RATIO_BYTES = 1 << 20
_MAX_HEADER_CHARACTERS = 10_000
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
    ValueError,
    SyntaxError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OSError,
    OverflowError,
    RecursionError,
    RuntimeError,
    NotImplementedError,
    MemoryError,
)


@dataclass(frozen=True, slots=True)
class Field:
    """What one array of an .npz file must be.

    Attributes:
        dtype: the element type, for example `float32`.
        shape: one entry per axis: a fixed length, or a letter that stands for the same length everywhere.
    """

    dtype: str
    shape: tuple[int | str, ...]


def pack_arrays(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Return the arrays as the bytes of an .npz file, stored without compression.

    The bytes depend on nothing but names, order and content: deflate would add the zlib build.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            npy.write_array(content, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", date_time=_TIMESTAMP), content.getvalue())
    return buffer.getvalue()


def unpack_arrays(
    data: bytes, name: str, fields: Mapping[str, Field], optional: Mapping[str, Field] | None = None
) -> dict[str, NDArray[np.generic]]:
    """Read the arrays that `fields` asks for, and nothing else.

    Args:
        data: the bytes of an .npz file, from anywhere.
        name: what the file is, for the error.
        fields: the arrays it must hold.
        optional: the arrays it may hold; all others are refused.

    Returns:
        Read-only arrays of the asked types and shapes.

    Raises:
        BundleError: the file is damaged, holds pickled objects, or arrays of another name, type or shape.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [entry.filename for entry in archive.infolist()]
            there = {key: field for key, field in (optional or {}).items() if f"{key}.npy" in names}
            fields = {**fields, **there}
            expected = [f"{field}.npy" for field in fields]
            if sorted(names) != sorted(expected):
                got = ", ".join(sorted(names)[:20])
                raise BundleError(f"{name} must hold the arrays {', '.join(sorted(fields))}, got {got}")
            unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > min(_MAX_BYTES, _MAX_RATIO * len(data) + _FREE_RATIO_BYTES):
                raise BundleError(f"{name} is a zip bomb: {len(data)} bytes would unpack to far more")
            arrays = {field: _read_array(archive.read(f"{field}.npy")) for field in fields}
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        raise BundleError(f"{name} is not a readable .npz file ({reason}): make the bundle again") from error
    _check_fields(arrays, name, fields)
    return arrays


def _read_array(data: bytes) -> NDArray[np.generic]:
    """Read one .npy file; the header's promise is compared with the bytes before anything is allocated."""
    stream = io.BytesIO(data)
    version = npy.read_magic(stream)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read_header is None:
        raise ValueError(f".npy version {version} is not known")
    shape, fortran, dtype = read_header(stream, max_header_size=_MAX_HEADER_CHARACTERS)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are never loaded")
    if min(shape, default=0) < 0:
        raise ValueError(f"an array has the shape {shape}")
    count = math.prod(shape)
    content = memoryview(data)[stream.tell() :]
    if count * dtype.itemsize != len(content):
        raise ValueError(f"an array of shape {shape} and type {dtype} has {len(content)} bytes")
    if count == 0:
        return np.zeros(shape, dtype)
    array: NDArray[np.generic] = np.frombuffer(content, dtype, count).reshape(
        shape, order="F" if fortran else "C"
    )
    return array


def _check_fields(arrays: Mapping[str, NDArray[np.generic]], name: str, fields: Mapping[str, Field]) -> None:
    lengths: dict[str, int] = {}  # what each letter stands for, from its first occurrence on
    for key, field in fields.items():
        array = arrays[key]
        shape = ", ".join(str(lengths.get(str(axis), axis)) for axis in field.shape)
        fits = array.ndim == len(field.shape) and all(
            length == (lengths.setdefault(axis, length) if isinstance(axis, str) else axis)
            for axis, length in zip(field.shape, array.shape, strict=True)
        )
        if not fits or array.dtype != np.dtype(field.dtype):
            raise BundleError(
                f"{name}: `{key}` must be {field.dtype} ({shape}), got {array.dtype} {array.shape}"
            )
