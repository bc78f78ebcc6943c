"""Static int8 quantisation of an ONNX graph's encoder with ONNX Runtime's quantiser: QDQ, per channel.

By default activations are u8 and weights keep 7 bits: with 8, u8 x s8 products saturate 16-bit sums on x86
without VNNI and the same file answers differently there; s8 activations are slower on x86.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import QDQQuantizer, QuantType, TensorsData
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer
from onnxruntime.quantization.shape_inference import quant_pre_process

from calibrate.onnx_ranges import ESTIMATORS, find_ranges
from calibrate.quiet import quiet_tool
from calibrate.recipe import Offer, Recipe, check_choice, check_modules, check_quantised, covers
from edge_fer.errors import CalibrationError

DEFAULT = Recipe(weights="s8-7bit", activations="u8", ranges="percentile")
OFFER = Offer(
    tool="ONNX Runtime's quantiser",
    weights=("s8", "s8-7bit"),
    activations=("u8", "s8"),
    ranges=ESTIMATORS,
    symmetric_activations=("s8",),
)
CARRIERS = ("Conv", "MatMul", "Gemm")
ELEMENTWISE = ("Add", "Mul", "Sub")
# Without ReduceMean: it has no int8 kernel, 8 bits around it would only cost the embedding precision.
QUANTISED_TYPES = (*CARRIERS, *ELEMENTWISE, "Relu", "GlobalAveragePool", "MaxPool")
# What makes maps of maps.
KEEP_MAPS = (*ELEMENTWISE, "Relu", "MaxPool", "GlobalAveragePool")
DYNAMIC_TYPES = ("MatMulNBits",)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A float graph as the quantiser needs it, and its activations' ranges: what every recipe can start from.

    Attributes:
        model: with constants folded, BatchNorms melted into convolutions, and all shapes known.
        ranges: by tensor.
        estimator: how they were estimated.
    """

    model: onnx.ModelProto
    ranges: TensorsData
    estimator: str


def prepare(
    model: onnx.ModelProto,
    crops: NDArray[np.uint8],
    *,
    recipe: Recipe = DEFAULT,
    progress: Callable[[int], None] | None = None,
) -> Prepared:
    """Do what takes long once for several calls of `quantise`, whose recipes may differ in all but `ranges`.

    Args:
        model: the float graph, its nodes named MODULE/OPERATOR.
        crops: (N, S, S, 3) uint8 calibration faces.
        recipe: whose way of finding ranges is taken.
        progress: called with the number of faces seen.

    Raises:
        CalibrationError: the recipe is none for this tool.
    """
    OFFER.check(recipe)
    with tempfile.TemporaryDirectory() as folder, quiet_tool():
        source = Path(folder) / "float.onnx"
        onnx.save(model, source)
        quant_pre_process(source, source, skip_symbolic_shape=True)
        prepared = load_model_with_shape_infer(source)
        tell = progress or (lambda _: None)
        ranges = find_ranges(prepared, QUANTISED_TYPES, crops, recipe.ranges, tell)
    return Prepared(prepared, ranges, recipe.ranges)


def quantise(
    model: onnx.ModelProto,
    encoder: Iterable[str],
    crops: NDArray[np.uint8],
    *,
    recipe: Recipe = DEFAULT,
    known: Callable[[], Prepared] | None = None,
    progress: Callable[[int], None] | None = None,
) -> onnx.ModelProto:
    """Quantise the encoder's nodes behind the pixel normalisation; everything else stays float32.

    Args:
        model: the float graph, its nodes named MODULE/OPERATOR; it is left alone.
        encoder: names of the nodes in front of the reliability head.
        crops: (N, S, S, 3) uint8 calibration faces.
        recipe: the choices. A symmetric one is laid out for TensorRT and not tried there: zero points 0,
            quantised inputs of convolutions and matrix products, float biases, nothing in between.
        known: gives what `prepare` made of the same graph and faces; None: it is done here. Called once the
            recipe is known to fit.
        progress: called with the number of faces seen.

    Raises:
        CalibrationError: the recipe is none for this tool, nothing was to be quantised, or the quantiser left
            every convolution and matrix product float.
    """
    OFFER.check(recipe)
    wanted = set(encoder)
    check_modules(recipe.float_modules, {module_of(name) for name in wanted})
    if not any(node.name in wanted and node.op_type in CARRIERS for node in model.graph.node):
        raise CalibrationError(
            f"expected nodes to quantise ({', '.join(CARRIERS)}), got none among {len(wanted)} named"
        )
    prepared = known() if known else prepare(model, crops, recipe=recipe, progress=progress)
    check_choice("prepared graph", "ranges", recipe.ranges, (prepared.estimator,))
    types = CARRIERS if recipe.symmetric else QUANTISED_TYPES
    nodes = choose_nodes(prepared.model, wanted, recipe, types)
    quantised = run_quantiser(prepared, nodes, types, recipe)
    check_quantised(count_quantised(quantised), CARRIERS)
    remove_leftovers(quantised)
    onnx.checker.check_model(quantised)
    return quantised


def run_quantiser(
    prepared: Prepared, nodes: list[str], types: Collection[str], recipe: Recipe
) -> onnx.ModelProto:
    """Let the tool quantise the nodes, QDQ; without any the graph stays as it is."""
    copied = onnx.ModelProto()
    copied.CopyFrom(prepared.model)
    if not nodes:  # for the tool an empty list means everything, the reliability head included
        return copied
    options: dict[str, Any] = {}
    if recipe.symmetric:
        options = {
            "ActivationSymmetric": True,
            "OpTypesToExcludeOutputQuantization": list(CARRIERS),
            "DedicatedQDQPair": True,
            "QuantizeBias": False,
        }
    with quiet_tool():
        tool = QDQQuantizer(
            copied,
            per_channel=True,
            reduce_range=recipe.weights == "s8-7bit",
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8 if recipe.activations == "u8" else QuantType.QInt8,
            tensors_range=copy.deepcopy(prepared.ranges),  # the tool changes some of them
            nodes_to_quantize=nodes,
            nodes_to_exclude=[],
            op_types_to_quantize=list(types),
            extra_options=options,
        )
        tool.quantize_model()
        tool.model.topological_sort()
    quantised: onnx.ModelProto = tool.model.model
    return quantised


def choose_nodes(
    model: onnx.ModelProto, wanted: Collection[str], recipe: Recipe, types: Collection[str]
) -> list[str]:
    """Return the names of the nodes to quantise.

    Left out are the pixel normalisation, what the recipe keeps float, products of two activations, and
    arithmetic of anything but maps: attention scores, tokens and pooled vectors are what 8 bits hurt first,
    and their share of the time is small.
    """
    normalisation, first = entrance(model)
    kept = normalisation | first if recipe.float_first else normalisation
    constants = {tensor.name for tensor in model.graph.initializer}
    maps: set[str] = set()
    chosen = []
    for node in model.graph.node:
        of_maps = all(name in maps or name in constants for name in node.input)
        if node.op_type == "Conv" or (node.op_type in KEEP_MAPS and of_maps):
            maps.update(node.output)
        if node.name not in wanted or node.name in kept or node.op_type not in types:
            continue
        if covers(recipe.float_modules, module_of(node.name)):
            continue
        if of_maps if node.op_type in ELEMENTWISE else is_weighted(node, constants):
            chosen.append(node.name)
    return chosen


def is_weighted(node: onnx.NodeProto, constants: Collection[str]) -> bool:
    """Tell whether a node is no matrix product, or one with constant weights."""
    return node.op_type not in ("MatMul", "Gemm") or any(name in constants for name in node.input)


def module_of(name: str) -> str:
    """Return the module in a node's name, MODULE/OPERATOR."""
    return name.partition("/")[0]


def entrance(model: onnx.ModelProto) -> tuple[set[str], set[str]]:
    """Return the names of the nodes that only pixels pass, and of the convolutions behind them."""
    behind: set[str] = set()
    before: set[str] = set()
    first: set[str] = set()
    for node in model.graph.node:
        reached = bool(behind.intersection(node.input))
        if not reached and node.op_type in CARRIERS:
            first.add(node.name)
        if reached or node.op_type in CARRIERS:
            behind.update(node.output)
        else:
            before.add(node.name)
    return before, first


def remove_leftovers(model: onnx.ModelProto) -> None:
    """Remove the tools' notes, and the operator sets that they declare although no node uses them."""
    used = {node.domain for node in model.graph.node}
    for entry in [entry for entry in model.opset_import if entry.domain not in used]:
        model.opset_import.remove(entry)
    model.ClearField("metadata_props")
    model.ClearField("doc_string")


def count_quantised(model: onnx.ModelProto) -> dict[str, int]:
    """Count, by operator type, the nodes all of whose float inputs come out of a DequantizeLinear.

    Matrix products that quantise their input themselves count, too.
    """
    quantisers = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    dequantised = {output for node in quantisers for output in node.output}
    counts: dict[str, int] = {}
    for node in model.graph.node:
        tensors = [name for name in node.input if name]
        static = node.op_type in QUANTISED_TYPES and tensors and dequantised.issuperset(tensors[:2])
        if static or node.op_type in DYNAMIC_TYPES:
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return dict(sorted(counts.items()))


def count_float(model: onnx.ModelProto) -> dict[str, int]:
    """Count, by operator type, the nodes that compute in float32; the quantisers themselves are left out."""
    quantised = count_quantised(model)
    counts: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
    rest = {kind: count - quantised.get(kind, 0) for kind, count in counts.items()}
    return {kind: count for kind, count in sorted(rest.items()) if count}
