"""A network as an ONNX graph that names its nodes after the modules they come from."""

from __future__ import annotations

import ast
import logging
import warnings
from collections.abc import Iterable

import onnx
import torch

from edge_fer.errors import EdgeFerError
from export.wrapper import INPUT, OUTPUTS, FusedGraph
from training.models import ExpressionNetwork

# JetPack's last ONNX Runtime, 1.23.2, reads up to these.
OPSET = 20
IR_VERSION = 10
_SCOPES = "pkg.torch.onnx.name_scopes"


class ExportError(EdgeFerError):
    """The exporter could not express the network, or its graph is not what was asked for."""


def export_onnx(network: ExpressionNetwork) -> onnx.ModelProto:
    """Export the fused graph of a network, with `embedding` as its fourth output.

    The batch is dynamic. BatchNorms behind a convolution are folded by the exporter's own optimiser; the fp32
    gate compares the outcome with the network on real faces.

    Raises:
        ExportError: an operator cannot be exported, named with its module.
    """
    fused = FusedGraph(network).eval()
    size = network.spec.input_size
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    try:
        with quiet_exporter():
            program = torch.onnx.export(
                fused,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes=({0: torch.export.Dim("N")},),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(f"{network.spec.model} cannot be written as ONNX: {first_line(error)}") from error
    assert program is not None
    model = program.model_proto
    name_nodes(model)
    strip(model)
    model.ir_version = min(model.ir_version, IR_VERSION)
    onnx.checker.check_model(model)
    return model


class quiet_exporter:  # noqa: N801 - reads as a verb where it is used
    """Keep the exporter's warnings about its own internals away from the user."""

    def __enter__(self) -> None:
        self.warnings = warnings.catch_warnings()
        self.warnings.__enter__()
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)

    def __exit__(self, *exc: object) -> None:
        logging.disable(logging.NOTSET)
        self.warnings.__exit__(None, None, None)


def first_line(error: Exception) -> str:
    """Return the innermost cause of an exporter error as one line."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__


def name_nodes(model: onnx.ModelProto) -> None:
    """Name every node MODULE/OPERATOR, numbered where that is not unique."""
    seen: dict[str, int] = {}
    for node in model.graph.node:
        scopes = next((p.value for p in node.metadata_props if p.key == _SCOPES), "[]")
        modules = [scope for scope in ast.literal_eval(scopes) if scope.startswith("network.")]
        base = f"{modules[-1].removeprefix('network.') if modules else 'graph'}/{node.op_type}"
        seen[base] = seen.get(base, 0) + 1
        node.name = base if seen[base] == 1 else f"{base}_{seen[base]}"


def strip(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes: they hold source paths of the machine that exported."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
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


def count_operators(model: onnx.ModelProto) -> dict[str, int]:
    """Count the nodes by operator type, sorted by name."""
    counts: dict[str, int] = {}
    for node in model.graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return dict(sorted(counts.items()))
