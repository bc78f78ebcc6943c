"""What every engine checks: the graph against the contract, the images against the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import EngineError
from edge_fer.spec import OUTPUTS, ModelSpec


class GraphValue(Protocol):
    """An input or output of a graph; an axis that is free is anything but an integer."""

    @property
    def name(self) -> str:
        """The name that the exporter gave it."""

    @property
    def type(self) -> str:
        """The type in the engine's own words."""

    @property
    def shape(self) -> Sequence[int | str | None]:
        """The axes."""


class Value(NamedTuple):
    """A `GraphValue` of an engine that has no such object of its own; a free axis is None."""

    name: str
    type: str
    shape: tuple[int | None, ...]


class TypeNames(NamedTuple):
    """The engine's own words for the two types of the contract."""

    uint8: str
    float32: str


def check_contract(
    inputs: Sequence[GraphValue],
    outputs: Sequence[GraphValue],
    spec: ModelSpec | None,
    types: TypeNames,
    batch: int | None = None,
) -> None:
    """Collect every way in which a graph breaks the contract, then raise them as one line.

    Args:
        inputs: the graph's inputs.
        outputs: the graph's outputs.
        spec: the bundle's; None for a graph that is in no bundle yet.
        types: how the engine calls the types of the contract.
        batch: how many faces the graph takes at a time; None: as many as come.

    Raises:
        EngineError: the graph breaks the contract.
    """
    faults: list[str] = []
    names = [value.name for value in inputs]
    if names != ["image"]:
        faults.append(f"inputs {', '.join(names) or 'none'} instead of image")
    else:
        faults += _check_image(inputs[0].type, list(inputs[0].shape), spec, types, batch)
    found = {value.name: value for value in outputs}
    wanted = spec.outputs if spec else OUTPUTS
    allowed = spec.outputs if spec else (*OUTPUTS, "embedding")
    if not set(wanted) <= set(found) <= set(allowed):
        faults.append(f"outputs {', '.join(found) or 'none'} instead of {', '.join(wanted)}")
    for name in sorted(set(found) & set(allowed)):
        kind, shape, rank = found[name].type, list(found[name].shape), 1 if name == "reliability" else 2
        if kind != types.float32 or len(shape) != rank or batch not in (None, shape[0]):
            first = "" if batch is None else f", the first one {batch}"
            faults.append(f"{name} is {kind} {shape} instead of float32 of {rank} axes{first}")
        elif spec and rank == 2 and name != "embedding" and shape[1] != len(spec.labels):
            faults.append(f"{name} has {shape[1]} columns instead of {len(spec.labels)}, one per label")
    if faults:
        raise EngineError(f"the graph breaks the bundle's contract: {'; '.join(faults)}; export it again")


def _check_image(
    kind: str, shape: list[int | str | None], spec: ModelSpec | None, types: TypeNames, batch: int | None
) -> list[str]:
    faults = []
    if kind != types.uint8:
        faults.append(f"image is {kind} instead of uint8")
    sized = len(shape) == 4 and isinstance(shape[1], int) and shape[1] == shape[2] and shape[3] == 3
    sized = sized and batch in (None, shape[0])
    if not sized:
        faults.append(f"image has the shape {shape} instead of ({batch or 'N'}, S, S, 3)")
    elif batch is None and isinstance(shape[0], int):
        faults.append(f"image has a fixed batch of {shape[0]} instead of a free one")
    if sized and spec and shape[1] != spec.input.size:
        faults.append(f"image is {shape[1]} pixels wide instead of {spec.input.size}")
    return faults


def check_images(images: NDArray[np.uint8], size: int) -> None:
    """Refuse what a graph for (N, size, size, 3) uint8 cannot take.

    Raises:
        EngineError: the images are not of that shape and type.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
        raise EngineError(f"expected images uint8 (N, {size}, {size}, 3), got {images.dtype} {images.shape}")


def one_line(error: Exception) -> str:
    """Return what a library says of a failure, without line breaks and at most 300 characters long."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."
