"""A network as a TFLite graph: one face at a time, NHWC, the contract's names in its one signature."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import calibrate.tflite
from calibrate.memory import Memory
from calibrate.recipe import Offer, Recipe
from calibrate.tflite import count_float, count_quantised, prepare, quantise, quantise_dynamic
from edge_fer.native_log import without_information
from edge_fer.spec import GRAPH_FILES
from edge_fer.spec import OUTPUTS as CONTRACT
from export import rewrites
from export.half.tflite import halve
from export.onnx import not_written, quiet_exporter
from export.target import Graph
from export.wrapper import INPUT, OUTPUTS, FusedGraph
from training.models import ExpressionNetwork

with quiet_exporter(), without_information():  # it tells of kernels that do not load, which nobody asked for
    import litert_torch

(FILE,) = GRAPH_FILES["tflite"]
# Tensors are named after classes and attributes of the modules that they come from, outermost first.
ENCODER = r"^[^;]*Encoder_encoder(?:/|;|$)"


class TfliteGraphs:
    """A network as TFLite graphs, float or int8, for LiteRT (TensorFlow Lite)."""

    engine: ClassVar[str] = "tflite"
    packages: ClassVar[tuple[str, ...]] = (
        "torch",
        "litert-torch",
        "ai-edge-quantizer",
        "ai-edge-litert",
        "numpy",
    )
    default_recipe: ClassVar[Recipe] = calibrate.tflite.DEFAULT
    offer: ClassVar[Offer] = calibrate.tflite.OFFER

    def __init__(self, network: ExpressionNetwork, *, embedding: bool = False) -> None:
        self.graph = export_tflite(rewrites.rewrite(network, rewrites.TFLITE), embedding=embedding)
        self.prepared = Memory(functools.partial(prepare, self.graph, ENCODER))

    def float_graph(self) -> Graph:
        """Return the float32 graph as it was converted."""
        return Graph({FILE: self.graph}, "none", {}, count_float(self.graph))

    def half_graph(self) -> Graph:
        """Return the graph with the encoder's constants in float16; XNNPACK computes in float32 on x86."""
        return Graph({FILE: halve(self.graph, ENCODER)}, "none", {}, count_float(self.graph))

    def dynamic_graph(self, float_modules: frozenset[str] = frozenset()) -> Graph:
        """Return the graph with weights of 8 bits, inputs quantised row by row as they come.

        Raises:
            CalibrationError: nothing was quantised.
        """
        return packed(quantise_dynamic(self.graph, ENCODER, float_modules=float_modules), "dynamic")

    def int8_graph(
        self, crops: NDArray[np.uint8], recipe: Recipe, progress: Callable[[int], None] | None
    ) -> Graph:
        """Return the graph with its encoder statically quantised on `crops` (N, S, S, 3) uint8.

        Raises:
            CalibrationError: nothing was quantised, or the quantiser cannot follow the recipe.
        """
        known = functools.partial(self.prepared, crops, recipe, progress)
        return packed(quantise(self.graph, ENCODER, crops, recipe=recipe, known=known), "static")


def packed(quantised: bytes, quantisation: str) -> Graph:
    """Return a quantised graph as its file, what stays float in the encoder with float16 constants."""
    counts = count_quantised(quantised), count_float(quantised)
    return Graph({FILE: halve(quantised, ENCODER)}, quantisation, *counts)


class NamedOutputs(nn.Module):
    """The fused graph with its outputs in a dict: the signature takes its names from there."""

    def __init__(self, fused: FusedGraph, names: Sequence[str]) -> None:
        super().__init__()
        self.fused, self.names = fused, names

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map uint8 faces (1, S, S, 3) to the outputs that were asked for."""
        outputs = dict(zip(OUTPUTS, self.fused(image), strict=True))
        return {name: outputs[name] for name in self.names}


def export_tflite(network: ExpressionNetwork, *, embedding: bool = False) -> bytes:
    """Convert the fused graph of a network to a TFLite flatbuffer for one face.

    Args:
        network: the network.
        embedding: whether `embedding` is an output, too.

    Raises:
        ExportError: an operator cannot be converted, named with its module.
    """
    fused = FusedGraph(network).eval()
    named = NamedOutputs(fused, OUTPUTS if embedding else CONTRACT).eval()
    size = network.spec.input_size
    example = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    try:
        with quiet_exporter(), without_information():
            converted = litert_torch.convert(named, sample_kwargs={INPUT: example})
            content = bytes(converted.model_content())
    # The converter has no type of its own; tracing runs the network's own code, which may raise any of these.
    except (RuntimeError, TypeError, ValueError) as error:
        raise not_written(error, fused, "TFLite") from error
    return content
