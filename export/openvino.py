"""A network as OpenVINO IR, converted from its exported ONNX graph."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

import numpy as np
import onnx
import openvino
from numpy.typing import NDArray

import calibrate.openvino
import export.onnx
from calibrate.openvino import ATTENTION, before, count_float, count_quantised, quantise
from calibrate.openvino_dynamic import quantise_dynamic
from calibrate.recipe import Offer, Recipe
from edge_fer.spec import GRAPH_FILES
from export import rewrites
from export.half.openvino import halve
from export.onnx import ExportError, quiet_exporter
from export.target import Graph
from training.models import ExpressionNetwork

GRAPH, WEIGHTS = GRAPH_FILES["openvino"]
# Names of the exporter have a dot or a slash.
NUMBERED = re.compile(r"\w+_\d+")


class OpenVinoGraphs:
    """A network as OpenVINO graphs."""

    engine: ClassVar[str] = "openvino"
    packages: ClassVar[tuple[str, ...]] = ("torch", "onnx", "openvino", "nncf", "numpy")
    default_recipe: ClassVar[Recipe] = calibrate.openvino.DEFAULT
    offer: ClassVar[Offer] = calibrate.openvino.OFFER

    def __init__(self, network: ExpressionNetwork, *, embedding: bool = False) -> None:
        self.model = convert(export.onnx.export_onnx(rewrites.rewrite(network, rewrites.OPENVINO)))
        self.encoder = before(self.model, "embedding")
        if not embedding:
            self.model.remove_result(self.model.output("embedding").get_node())
        encoder = set(self.encoder)  # the head has a softmax, too, and stays float32
        inside = (op for op in self.model.get_ordered_ops() if op.get_friendly_name() in encoder)
        self.attends = any(op.get_type_name() in ATTENTION for op in inside)

    def float_graph(self) -> Graph:
        """Return the float32 graph as it was converted."""
        return Graph(members(self.model), "none", {}, count_float(self.model))

    def half_graph(self) -> Graph:
        """Return the graph with the encoder's constants in float16; it computes in bf16 where the CPU can."""
        halved = halve(self.model, self.encoder)
        return Graph(members(halved), "none", {}, count_float(self.model), float_compute="bf16")

    def dynamic_graph(self, float_modules: frozenset[str] = frozenset()) -> Graph:
        """Return the graph with weights of 8 bits, inputs of matrix products quantised as they come.

        Raises:
            CalibrationError: the encoder has no such products.
        """
        return self.packed(quantise_dynamic(self.model, self.encoder, float_modules=float_modules), "dynamic")

    def int8_graph(
        self, crops: NDArray[np.uint8], recipe: Recipe, progress: Callable[[int], None] | None
    ) -> Graph:
        """Return the graph with its encoder statically quantised on `crops` (N, S, S, 3) uint8.

        Raises:
            CalibrationError: nothing was quantised, or the quantiser cannot follow the recipe.
        """
        quantised = quantise(self.model, self.encoder, crops, recipe=recipe, progress=progress)
        number_nameless(quantised)
        return self.packed(quantised, "static")

    def packed(self, quantised: openvino.Model, quantisation: str) -> Graph:
        """Return a quantised graph as its files.

        What stays float beside attention is worth computing in bf16; a plain convolutional encoder leaves
        nothing but the head, which would only lose digits.
        """
        return Graph(
            members(halve(quantised, self.encoder)),
            quantisation,
            count_quantised(quantised),
            count_float(quantised),
            float_compute="bf16" if self.attends else "fp32",
        )


def convert(model: onnx.ModelProto) -> openvino.Model:
    """Convert an exported graph, all its outputs included.

    Raises:
        ExportError: OpenVINO does not know an operator.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        try:
            with quiet_exporter():
                converted = openvino.convert_model(path)
        # OpConversionFailure is a plain RuntimeError in some versions.
        except RuntimeError as error:
            text = " ".join(str(error).split())[:300]
            raise ExportError(f"the graph cannot be written for OpenVINO: {text}") from error
    number_nameless(converted)
    return converted


def number_nameless(model: openvino.Model) -> None:
    """Name by its place what a tool numbered: the numbers go on from one graph to the next."""
    for place, operation in enumerate(model.get_ordered_ops()):
        if NUMBERED.fullmatch(operation.get_friendly_name()):
            operation.set_friendly_name(f"{operation.get_type_name()}_{place}")


def members(model: openvino.Model) -> dict[str, bytes]:
    """Return the files of a graph, weights in float32 where they are not quantised."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / GRAPH
        openvino.save_model(model, path, compress_to_fp16=False)
        return {GRAPH: without_notes(path.read_bytes()), WEIGHTS: (Path(folder) / WEIGHTS).read_bytes()}


def without_notes(graph: bytes) -> bytes:
    """Remove the tools' notes on the whole graph: they hold paths and settings of the machine."""
    root = ElementTree.fromstring(graph)
    for notes in root.findall("rt_info"):
        root.remove(notes)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"
