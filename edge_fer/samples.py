"""The evidence a bundle carries: golden samples and reference outputs, as arrays and as .npz bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fer.arrays import Field, pack_arrays, unpack_arrays
from edge_fer.errors import BundleError

MAX_SOURCE_BYTES = 40_000
"""The longest encoded source picture of a golden sample."""

_GOLDEN_FIELDS = {
    "sources": Field("uint8", ("bytes",)),
    "offsets": Field("int64", ("G+1",)),
    "boxes": Field("float32", ("G", 4)),
    "landmarks": Field("float32", ("G", 5, 2)),
    "whole": Field("bool", ("G",)),
    "crops": Field("uint8", ("G", "S", "S", 3)),
    "probabilities": Field("float32", ("G", "C")),
    "primary": Field("float32", ("G", "C")),
    "reliability": Field("float32", ("G",)),
}
_REFERENCE_FIELDS = {
    "labels": Field("int16", ("N",)),
    "hashes": Field("uint8", ("N", 32)),  # raw SHA-256: a quarter of the size of '<U64'
    "probabilities": Field("float32", ("N", "C")),
    "primary": Field("float32", ("N", "C")),
    "reliability": Field("float32", ("N",)),
    "about": Field("uint8", ("bytes",)),  # {"name", "names"} as JSON
}


_REFERENCE_OPTIONS = {"embedding": Field("float32", ("N", "D"))}


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """G samples from an encoded picture to the PyTorch checkpoint's outputs.

    Attributes:
        sources: G encoded pictures (JPEG or PNG), each at most `MAX_SOURCE_BYTES`.
        boxes: (G, 4) float32, x, y, width, height in pixels of the source; zeros where `whole`.
        landmarks: (G, 5, 2) float32, x, y in pixels of the source; NaN where there are none.
        whole: (G,) bool; True: the source is a ready crop and its box is ignored.
        crops: (G, S, S, 3) uint8 RGB 0..255, what the one preprocessing must give.
        probabilities: (G, C) float32, the checkpoint's final distribution.
        primary: (G, C) float32, the distribution before reliability balancing.
        reliability: (G,) float32.
    """

    sources: tuple[bytes, ...]
    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    whole: NDArray[np.bool_]
    crops: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    primary: NDArray[np.float32]
    reliability: NDArray[np.float32]

    def to_bytes(self) -> bytes:
        """Return the samples as the bytes of golden.npz; the same samples give the same bytes.

        Raises:
            BundleError: an array has another type or shape, or a source is too long.
        """
        lengths = [len(source) for source in self.sources]
        data = pack_arrays(
            {
                "sources": np.frombuffer(b"".join(self.sources), np.uint8),
                "offsets": np.cumsum([0, *lengths], dtype=np.int64),
                "boxes": self.boxes,
                "landmarks": self.landmarks,
                "whole": self.whole,
                "crops": self.crops,
                "probabilities": self.probabilities,
                "primary": self.primary,
                "reliability": self.reliability,
            }
        )
        Golden.from_bytes(data)
        return data

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "golden.npz") -> Golden:
        """Read golden samples.

        Args:
            data: the bytes of golden.npz.
            name: what the bytes are, for the error.

        Raises:
            BundleError: the bytes are damaged or hold something else.
        """
        arrays = unpack_arrays(data, name, _GOLDEN_FIELDS)
        offsets = np.asarray(arrays["offsets"], np.int64)
        blob = np.asarray(arrays["sources"], np.uint8).tobytes()
        count = len(arrays["boxes"])
        lengths = np.diff(offsets)
        if len(offsets) != count + 1 or offsets[0] != 0 or offsets[-1] != len(blob) or (lengths <= 0).any():
            raise BundleError(
                f"{name}: `offsets` do not cut `sources` into {count} pictures: make the bundle again"
            )
        if (lengths > MAX_SOURCE_BYTES).any():
            raise BundleError(
                f"{name}: a source picture has {lengths.max()} bytes, at most {MAX_SOURCE_BYTES} are allowed"
            )
        golden = cls(
            sources=tuple(blob[start:end] for start, end in pairwise(offsets)),
            boxes=np.asarray(arrays["boxes"], np.float32),
            landmarks=np.asarray(arrays["landmarks"], np.float32),
            whole=np.asarray(arrays["whole"], np.bool_),
            crops=np.asarray(arrays["crops"], np.uint8),
            probabilities=np.asarray(arrays["probabilities"], np.float32),
            primary=np.asarray(arrays["primary"], np.float32),
            reliability=np.asarray(arrays["reliability"], np.float32),
        )
        _check_finite(name, boxes=golden.boxes, probabilities=golden.probabilities, primary=golden.primary)
        _check_finite(name, reliability=golden.reliability)
        return golden


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What the float32 PyTorch checkpoint answers on N faces, without their pixels.

    Attributes:
        labels: (N,) int16, index into `names`; -1 for a face without a label.
        hashes: (N,) '<U64', `faces.face_hash` of each crop: 64 lower-case hexadecimal digits.
        probabilities: (N, C) float32, the final distribution.
        primary: (N, C) float32, the distribution before reliability balancing.
        reliability: (N,) float32.
        name: what the faces are, for example `ferplus:valid`.
        names: the C class names, in the order of the columns.
        embedding: (N, D) float32, the vector in front of the reliability head; None unless it was asked for.
    """

    labels: NDArray[np.int16]
    hashes: NDArray[np.str_]
    probabilities: NDArray[np.float32]
    primary: NDArray[np.float32]
    reliability: NDArray[np.float32]
    name: str
    names: tuple[str, ...]
    embedding: NDArray[np.float32] | None = None

    def rows(self, rows: NDArray[np.int64]) -> Reference:
        """Return some of the faces, in the order asked for."""
        return replace(
            self,
            labels=self.labels[rows],
            hashes=self.hashes[rows],
            probabilities=self.probabilities[rows],
            primary=self.primary[rows],
            reliability=self.reliability[rows],
            embedding=None if self.embedding is None else self.embedding[rows],
        )

    def to_bytes(self) -> bytes:
        """Return the outputs as the bytes of reference.npz; the same outputs give the same bytes.

        Raises:
            BundleError: an array has another type or shape, or a hash is not 64 hexadecimal digits.
        """
        try:
            raw = b"".join(bytes.fromhex(digits) for digits in self.hashes.tolist())
            hashes = np.frombuffer(raw, np.uint8).reshape(len(self.hashes), 32)
        except ValueError as error:
            raise BundleError("reference outputs: every hash must be 64 hexadecimal digits") from error
        about = json.dumps({"name": self.name, "names": list(self.names)}).encode()
        arrays: dict[str, NDArray[Any]] = {
            "labels": self.labels,
            "hashes": hashes,
            "probabilities": self.probabilities,
            "primary": self.primary,
            "reliability": self.reliability,
            "about": np.frombuffer(about, np.uint8),
        }
        if self.embedding is not None:
            arrays["embedding"] = self.embedding
        data = pack_arrays(arrays)
        Reference.from_bytes(data)
        return data

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "reference.npz") -> Reference:
        """Read reference outputs.

        Args:
            data: the bytes of reference.npz.
            name: what the bytes are, for the error.

        Raises:
            BundleError: the bytes are damaged or hold something else.
        """
        arrays = unpack_arrays(data, name, _REFERENCE_FIELDS, _REFERENCE_OPTIONS)
        embedding = np.asarray(arrays["embedding"], np.float32) if "embedding" in arrays else None
        set_name, names = _read_about(np.asarray(arrays["about"], np.uint8).tobytes(), name)
        digits = np.asarray(arrays["hashes"], np.uint8).tobytes().hex()
        reference = cls(
            labels=np.asarray(arrays["labels"], np.int16),
            hashes=np.array([digits[i : i + 64] for i in range(0, len(digits), 64)], dtype="<U64"),
            probabilities=np.asarray(arrays["probabilities"], np.float32),
            primary=np.asarray(arrays["primary"], np.float32),
            reliability=np.asarray(arrays["reliability"], np.float32),
            name=set_name,
            names=names,
            embedding=embedding,
        )
        classes = reference.probabilities.shape[1]
        if len(names) != classes:
            raise BundleError(f"{name} names {len(names)} classes and has {classes} columns: make it again")
        if len(reference.labels) and not (reference.labels.min() >= -1 and reference.labels.max() < classes):
            raise BundleError(f"{name}: `labels` must lie in -1..{classes - 1}: make it again")
        _check_finite(name, probabilities=reference.probabilities, primary=reference.primary)
        _check_finite(name, reliability=reference.reliability)
        if embedding is not None:
            _check_finite(name, embedding=embedding)
        return reference


def read_reference(path: Path) -> Reference:
    """Read a REFERENCE.npz that stands alone, as `export --reference-only` writes it.

    Raises:
        BundleError: the file is missing, unreadable or something else.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"the reference outputs {path} cannot be read: {error.strerror}") from error
    return Reference.from_bytes(data, str(path))


def _read_about(data: bytes, name: str) -> tuple[str, tuple[str, ...]]:
    try:
        about = json.loads(data)
        set_name, names = about["name"], about["names"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{name}: `about` must be JSON with name and names: make it again") from error
    if (
        not isinstance(set_name, str)
        or not isinstance(names, list)
        or not all(isinstance(n, str) for n in names)
    ):
        raise BundleError(f"{name}: `about` must be JSON with name and names: make it again")
    return set_name, tuple(names)


def _check_finite(name: str, **arrays: NDArray[np.float32]) -> None:
    for key, array in arrays.items():
        if not np.isfinite(array).all():
            raise BundleError(f"{name}: `{key}` holds values that are not finite: make it again")
