"""A network as an ONNX graph that names its nodes after the modules they come from."""

from __future__ import annotations

import ast
import functools
import io
import logging
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import ClassVar

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

import calibrate.onnx
from calibrate.memory import Memory
from calibrate.onnx_dynamic import quantise_dynamic
from calibrate.quiet import quiet_tool
from calibrate.recipe import Offer, Recipe
from edge_fer.errors import EdgeFerError
from edge_fer.spec import GRAPH_FILES
from export import rewrites
from export.half.onnx import halve
from export.target import Graph
from export.wrapper import INPUT, OUTPUTS, FusedGraph
from training.models import ExpressionNetwork

# JetPack's last ONNX Runtime, 1.23.2, reads up to these.
OPSET = 20
IR_VERSION = 10
_SCOPES = "pkg.torch.onnx.name_scopes"
_NETWORK = "network."
(FILE,) = GRAPH_FILES["onnx"]


class ExportError(EdgeFerError):
    """The exporter could not express the network, or its graph is not what was asked for."""


class OnnxGraphs:
    """A network as ONNX graphs for ONNX Runtime."""

    engine: ClassVar[str] = "onnxruntime"
    packages: ClassVar[tuple[str, ...]] = ("torch", "onnx", "onnxruntime", "numpy")
    default_recipe: ClassVar[Recipe] = calibrate.onnx.DEFAULT
    offer: ClassVar[Offer] = calibrate.onnx.OFFER

    def __init__(self, network: ExpressionNetwork, *, embedding: bool = False) -> None:
        self.network, self.embedding = network, embedding
        self.model, self.encoder = self.rewritten(rewrites.ONNX)
        self.prepared = Memory(functools.partial(calibrate.onnx.prepare, self.model))

    def float_graph(self) -> Graph:
        """Return the float32 graph as it was exported."""
        return packed(self.model, "none", ())

    def half_graph(self) -> Graph:
        """Return the graph with the encoder's constants in float16; ONNX Runtime computes in float32."""
        return packed(self.model, "none", self.encoder)

    def dynamic_graph(self, float_modules: frozenset[str] = frozenset()) -> Graph:
        """Return the graph with matrix products of 8 bits, their inputs quantised as they come.

        Raises:
            CalibrationError: the encoder has no such products.
        """
        # Without `flatten_linears`: the quantiser knows MatMul, not Gemm.
        model, encoder = self.rewritten(rewrites.TFLITE)
        return packed(quantise_dynamic(model, encoder, float_modules=float_modules), "dynamic", encoder)

    def int8_graph(
        self, crops: NDArray[np.uint8], recipe: Recipe, progress: Callable[[int], None] | None
    ) -> Graph:
        """Return the graph with its encoder statically quantised on `crops` (N, S, S, 3) uint8.

        Raises:
            CalibrationError: nothing was quantised, or the quantiser cannot follow the recipe.
        """
        known = functools.partial(self.prepared, crops, recipe, progress)
        quantised = calibrate.onnx.quantise(self.model, self.encoder, crops, recipe=recipe, known=known)
        # The quantiser adds nodes of its own; those of the head keep their names.
        names = {node.name for node in quantised.graph.node} - self.head
        return packed(quantised, "static", names)

    def rewritten(self, changes: Sequence[rewrites.Rewrite]) -> tuple[onnx.ModelProto, list[str]]:
        """Return the exported graph of the rewritten network and the names of its encoder's nodes."""
        model = export_onnx(rewrites.rewrite(self.network, changes))
        return model if self.embedding else drop_outputs(model, ["embedding"]), encoder_nodes(model)

    @property
    def head(self) -> set[str]:
        """Names of the nodes of the reliability head."""
        return {node.name for node in self.model.graph.node} - set(self.encoder)


def packed(model: onnx.ModelProto, quantisation: str, narrow: Collection[str]) -> Graph:
    """Return a graph as its file, constants of the nodes `narrow` in float16, with its operators counted."""
    # The engine folds what widens the constants: it is no operator.
    content = halve(model, narrow).SerializeToString(deterministic=True)
    counts = calibrate.onnx.count_quantised(model), calibrate.onnx.count_float(model)
    return Graph({FILE: content}, quantisation, *counts)


def export_onnx(network: ExpressionNetwork) -> onnx.ModelProto:
    """Export the fused graph of a network, with `embedding` as its fourth output.

    The batch is dynamic. BatchNorms behind a convolution are folded by the exporter's own optimiser; the fp32
    gate compares the outcome with the network on real faces.

    Raises:
        ExportError: an operator cannot be exported, named with its module.
    """
    fused = FusedGraph(network).eval()
    model = convert(fused)
    name_nodes(model)
    strip(model)
    model.ir_version = min(model.ir_version, IR_VERSION)
    onnx.checker.check_model(model)
    return model


def convert(fused: FusedGraph) -> onnx.ModelProto:
    """Trace the module and write its operators as ONNX, as the exporter leaves it."""
    spec = fused.network.spec
    example = torch.zeros(2, spec.input_size, spec.input_size, 3, dtype=torch.uint8)
    try:
        with quiet_exporter():
            # Traced here: torch.onnx.export would go on to other ways and dump the graph of each failure.
            program = torch.export.export(
                fused, (example,), dynamic_shapes=({0: torch.export.Dim("N")},), strict=False
            )
            written = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                verbose=False,
            )
    # OnnxExporterError is a RuntimeError; tracing runs the network's own code, which may raise the others.
    except (RuntimeError, TypeError, ValueError) as error:
        raise not_written(error, fused, "ONNX") from error
    assert written is not None
    return written.model_proto


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keep what the exporter says, warns and prints about its own internals away from the user."""
    with quiet_tool(logging.CRITICAL), redirect_stderr(io.StringIO()):
        yield


def not_written(error: BaseException, fused: FusedGraph, form: str) -> ExportError:
    """Return what an exporter's error means for its user: the reason on one line, and the module."""
    cause = innermost(error)
    text = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
    module = failing_module(cause, fused) or "the network"
    return ExportError(f"{fused.network.spec.model} cannot be written as {form}: {text} (in {module})")


def innermost(error: BaseException) -> BaseException:
    """Return the exception that an exporter's error was first raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def failing_module(error: BaseException, fused: FusedGraph) -> str:
    """Return the module that was traced or converted when the exporter failed; "" when nothing tells.

    The frames of the error know it: tracing stands in a module's `forward`, conversion at a node of the
    trace, which remembers its modules.
    """
    names = {id(module): name for name, module in fused.named_modules()}
    found = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        found = names.get(id(frame.f_locals.get("self")), found)
        node = frame.f_locals.get("node")
        if isinstance(node, torch.fx.Node) and node.meta.get("nn_module_stack"):
            found = [name for name, _ in node.meta["nn_module_stack"].values()][-1]
    return found.removeprefix(_NETWORK)


def name_nodes(model: onnx.ModelProto) -> None:
    """Name every node MODULE/OPERATOR, numbered where that is not unique; the wrapper's own are `graph`."""
    seen: dict[str, int] = {}
    for node in model.graph.node:
        base = f"{module_of(node) or 'graph'}/{node.op_type}"
        seen[base] = seen.get(base, 0) + 1
        node.name = base if seen[base] == 1 else f"{base}_{seen[base]}"


def module_of(node: onnx.NodeProto) -> str:
    """Return the module of the network that a node comes from; "" for none."""
    if node.op_type == "Conv" and node.input[1].startswith(_NETWORK):
        # A convolution that swallowed a BatchNorm carries its scope, but still its own weight.
        return node.input[1].removeprefix(_NETWORK).rpartition(".")[0]
    scopes = next((p.value for p in node.metadata_props if p.key == _SCOPES), "[]")
    modules = [scope for scope in ast.literal_eval(scopes) if scope.startswith(_NETWORK)]
    return modules[-1].removeprefix(_NETWORK) if modules else ""


def strip(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes: they hold source paths of the machine that exported."""
    graph = model.graph
    for item in (
        model,
        graph,
        *graph.node,
        *graph.input,
        *graph.output,
        *graph.initializer,
        *graph.value_info,
    ):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    model.ClearField("functions")


def encoder_nodes(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes that `embedding` depends on: everything before the reliability head."""
    producers = {output: node for node in model.graph.node for output in node.output}
    pending, names = ["embedding"], set()
    while pending:
        node = producers.get(pending.pop())
        if node is not None and node.name not in names:
            names.add(node.name)
            pending.extend(node.input)
    return [node.name for node in model.graph.node if node.name in names]


def drop_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """Return a copy without the named outputs; the nodes stay where something else needs them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for output in [o for o in copy.graph.output if o.name in set(names)]:
        copy.graph.output.remove(output)
    return copy
