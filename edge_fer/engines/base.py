"""What every engine takes and gives, whatever library runs the graph."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_fer.bundle import Bundle

BATCH = 64
"""Crops that `run_all` gives an engine at a time."""

WARM_UP_RUNS = 5
"""Runs before a profile counts: engines choose kernels and pack weights in the first ones."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """The graph's answers for N crops and C classes.

    Attributes:
        probabilities: (N, C) float32, the final, corrected distribution; rows sum to 1.
        primary: (N, C) float32, the distribution before reliability balancing.
        reliability: (N,) float32, 0..1, 1 - normalised entropy of `probabilities`.
        embedding: (N, D) float32, or None for a graph without it.
    """

    probabilities: NDArray[np.float32]
    primary: NDArray[np.float32]
    reliability: NDArray[np.float32]
    embedding: NDArray[np.float32] | None = None

    def rows(self, rows: NDArray[np.int64]) -> Outputs:
        """Return the answers for some of the crops, in the order asked for."""
        return Outputs(
            self.probabilities[rows],
            self.primary[rows],
            self.reliability[rows],
            None if self.embedding is None else self.embedding[rows],
        )


def usable_cores() -> int:
    """Return how many cores this process may run on: fewer than the machine has under taskset or a cpuset."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What the user may choose; None leaves the choice to the bundle or the engine.

    Attributes:
        engine: onnxruntime, openvino or tflite.
        threads: threads that work on one inference, at least 1.
        device: cpu, cuda, cuda:1 ...
        provider: the engine's way to the device: cpu, cuda, tensorrt, xnnpack ..., or its own name for it.
        profile: load the graph so that `Engine.profile` can tell the time of every node; runs get slower.
    """

    engine: str | None = None
    threads: int | None = None
    device: str | None = None
    provider: str | None = None
    profile: bool = False


@dataclass(frozen=True, slots=True)
class Installed:
    """An engine's library as it imports here.

    Attributes:
        package: the distribution that it comes from.
        version: of the library.
        places: what `--provider` may name (onnxruntime, tflite), or `--device` (openvino); being listed says
            that the library was built for a place, not that the place is in order.
    """

    package: str
    version: str
    places: tuple[str, ...]


class NodeTime(NamedTuple):
    """What one executed node of a graph took in one run.

    Attributes:
        type: the operator, in the engine's own words; a node that was fused into another is not listed.
        ms: milliseconds; engines count in whole microseconds.
    """

    type: str
    ms: float


class Engine(Protocol):
    """A loaded graph."""

    name: str

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Run the graph once.

        Args:
            images: (N, S, S, 3) uint8 RGB 0..255.

        Raises:
            EngineError: the engine failed.
        """
        ...

    def describe(self) -> dict[str, object]:
        """Return engine, version, provider and threads, for records of a run."""
        ...

    def profile(self, images: NDArray[np.uint8], runs: int) -> list[list[NodeTime]]:
        """Return what every node took in each of some runs, or one list of means where no more is known.

        For an engine that was loaded with `EngineOptions.profile`, and once.

        Args:
            images: (N, S, S, 3) uint8 RGB 0..255.
            runs: how often the graph runs, after `WARM_UP_RUNS` that are not counted.

        Raises:
            EngineError: the engine failed, cannot tell, or was not loaded with `EngineOptions.profile`.
        """
        ...


class EngineClass(Protocol):
    """What the registry names: it makes an engine from a verified bundle."""

    def installed(self) -> Installed:
        """Import the engine's library and say what it is.

        Raises:
            MissingEngineError: it does not import.
        """
        ...

    def load(self, bundle: Bundle, options: EngineOptions) -> Engine:
        """Load the bundle's graph.

        Raises:
            EngineError: the engine is not installed or refuses the graph or the options.
        """
        ...


def run_all(
    engine: Engine, images: NDArray[np.uint8], progress: Callable[[int], None] | None = None
) -> Outputs:
    """Run a graph on any number of crops, a batch at a time.

    Args:
        engine: that holds the graph.
        images: (N, S, S, 3) uint8 RGB 0..255, N at least 1.
        progress: called with the number of crops done so far.

    Raises:
        EngineError: the engine failed.
    """
    parts = []
    for start in range(0, len(images), BATCH):
        parts.append(engine.run(images[start : start + BATCH]))
        if progress is not None:
            progress(min(start + BATCH, len(images)))
    embeddings = [part.embedding for part in parts if part.embedding is not None]
    return Outputs(
        probabilities=np.concatenate([part.probabilities for part in parts]),
        primary=np.concatenate([part.primary for part in parts]),
        reliability=np.concatenate([part.reliability for part in parts]),
        embedding=np.concatenate(embeddings) if embeddings else None,
    )
