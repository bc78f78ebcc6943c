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

import export.onnx
from calibrate.openvino import before, count_float, count_quantised, quantise
from edge_fer.spec import GRAPH_FILES
from export.onnx import ExportError, quiet_exporter
from export.target import Graph
from training.models import ExpressionNetwork

GRAPH, WEIGHTS = GRAPH_FILES["openvino"]
# Names of the exporter have a dot or a slash.
NUMBERED = re.compile(r"\w+_\d+")


class OpenVinoGraphs:
    """A network as OpenVINO graphs, float or int8."""

    engine: ClassVar[str] = "openvino"
    packages: ClassVar[tuple[str, ...]] = ("torch", "onnx", "openvino", "nncf", "numpy")

    def __init__(self, network: ExpressionNetwork) -> None:
        self.model = convert(export.onnx.export_onnx(network))
        self.encoder = before(self.model, "embedding")
        self.model.remove_result(self.model.output("embedding").get_node())

    def float_graph(self) -> Graph:
        """Return the float32 graph as it was converted."""
        return Graph(members(self.model), "none", {}, count_float(self.model))

    def int8_graph(self, crops: NDArray[np.uint8], progress: Callable[[int], None] | None) -> Graph:
        """Return the graph with its encoder statically quantised on `crops` (N, S, S, 3) uint8.

        Raises:
            CalibrationError: nothing was quantised.
        """
        quantised = quantise(self.model, self.encoder, crops, progress=progress)
        number_nameless(quantised)
        return Graph(members(quantised), "static", count_quantised(quantised), count_float(quantised))


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
