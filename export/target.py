"""The targets: each turns a network into its own format, float or int8; only one is imported."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from calibrate.recipe import Offer, Recipe
from edge_fer.errors import MissingPackageError, UsageError
from training.models import ExpressionNetwork


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph to ship.

    Attributes:
        members: file name to bytes, the names of `edge_fer.spec.GRAPH_FILES`.
        quantisation: none, dynamic or static.
        quantised_ops: operation type to the count that is quantised.
        float_ops: operation type to the count that computes in float.
        float_compute: what its float operators compute in, fp32, or bf16 where the processor can.
    """

    members: Mapping[str, bytes]
    quantisation: str
    quantised_ops: Mapping[str, int]
    float_ops: Mapping[str, int]
    float_compute: str = "fp32"

    @property
    def size_bytes(self) -> int:
        """Size of all its files."""
        return sum(len(content) for content in self.members.values())


class Converted(Protocol):
    """A network in one target's format, rewritten for its kernels.

    Attributes:
        engine: that runs the target by default.
        packages: whose versions go into the spec.
        default_recipe: that the target is quantised by when nobody names another.
        offer: what its quantiser can do of a recipe.
    """

    engine: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    default_recipe: ClassVar[Recipe]
    offer: ClassVar[Offer]

    def __init__(self, network: ExpressionNetwork, *, embedding: bool = False) -> None:
        """Convert the fused graph of a network in eval mode, its `embedding` a fourth output if asked for."""

    def float_graph(self) -> Graph:
        """Return the float32 graph."""
        ...

    def half_graph(self) -> Graph:
        """Return the graph whose encoder has float16 constants and computes in bf16 where its engine can."""
        ...

    def dynamic_graph(self, float_modules: frozenset[str] = frozenset()) -> Graph:
        """Return the graph whose encoder has int8 weights, and activations quantised row by row as it runs.

        Args:
            float_modules: module paths that stay float with everything beneath them.

        Raises:
            CalibrationError: the target has no such form, or nothing was quantised.
        """
        ...

    def int8_graph(
        self, crops: NDArray[np.uint8], recipe: Recipe, progress: Callable[[int], None] | None
    ) -> Graph:
        """Return the graph with its encoder statically quantised.

        Args:
            crops: (N, S, S, 3) uint8 RGB calibration faces.
            recipe: how.
            progress: called with the number of faces seen.

        Raises:
            CalibrationError: nothing was quantised, or the target's quantiser cannot follow the recipe.
        """
        ...


TARGETS = {
    "onnx": "export.onnx:OnnxGraphs",
    "openvino": "export.openvino:OpenVinoGraphs",
    "tflite": "export.tflite:TfliteGraphs",
}


def load_target(name: str) -> type[Converted]:
    """Import the module of a target.

    Raises:
        UsageError: there is no such target.
        MissingPackageError: its packages are not installed.
    """
    if name not in TARGETS:
        raise UsageError(f"--target {name}: expected {', '.join(TARGETS)}")
    module, _, attribute = TARGETS[name].partition(":")
    try:
        return cast("type[Converted]", getattr(importlib.import_module(module), attribute))
    except ImportError as error:
        raise MissingPackageError.of_stage(f"--target {name}", error, "export") from error
