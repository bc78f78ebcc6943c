"""Static int8 quantisation of an OpenVINO graph's encoder with NNCF, per channel.

By default weights keep 7 bits: with 8, products saturate 16-bit sums on x86 without VNNI and the same file
answers differently there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import nncf
import numpy as np
import openvino
from nncf.quantization.range_estimator import (
    AggregatorType,
    RangeEstimatorParameters,
    RangeEstimatorParametersSet,
    StatisticsCollectorParameters,
    StatisticsType,
)
from numpy.typing import NDArray

from calibrate.quiet import quiet_tool
from calibrate.recipe import Offer, Recipe, check_modules, check_quantised, covers
from edge_fer.errors import CalibrationError

DEFAULT = Recipe(weights="s8-7bit", symmetric=True, ranges="minmax", smooth_quant=0.95)
OFFER = Offer(
    tool="NNCF",
    weights=("s8", "s8-7bit"),
    activations=("u8",),  # signed where a range crosses 0: the tool decides by itself
    ranges=("minmax", "mean", "percentile", "mse"),
    bias_corrections=("none", "fast", "slow"),
    smooth_quant=True,
)
CARRIERS = ("Convolution", "GroupConvolution", "MatMul")
# The converter fuses a whole attention into one operation where it can.
ATTENTION = ("Softmax", "ScaledDotProductAttention")
# What is no computation of its own: ends of the graph, and the quantisers.
SILENT = ("Constant", "Parameter", "Result", "FakeQuantize")
MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "MaxPool")
# The share of a face's values that "percentile" leaves outside, at each end.
OUTSIDE = 1e-4


def quantise(
    model: openvino.Model,
    encoder: Collection[str],
    crops: NDArray[np.uint8],
    *,
    recipe: Recipe = DEFAULT,
    progress: Callable[[int], None] | None = None,
) -> openvino.Model:
    """Quantise the encoder's operations behind the pixel normalisation; everything else stays float32.

    Args:
        model: the float graph, its operations named MODULE/OPERATOR; it is left alone.
        encoder: names of the operations in front of the reliability head.
        crops: (N, S, S, 3) uint8 calibration faces.
        recipe: the choices.
        progress: called with the number of faces seen.

    Raises:
        CalibrationError: the recipe is none for this tool, or no convolution or matrix product was quantised.
    """
    OFFER.check(recipe)
    operations = model.get_ordered_ops()
    normalisation, first = entrance(model)
    wanted = set(encoder) - normalisation - in_modules(model, encoder, recipe.float_modules)
    wanted -= first if recipe.float_first else set()
    ignored = [op.get_friendly_name() for op in operations if op.get_type_name() not in SILENT]
    ignored = [name for name in ignored if name not in wanted]
    attends = any(op.get_type_name() in ATTENTION and op.get_friendly_name() in wanted for op in operations)
    if not any(op.get_type_name() in CARRIERS and op.get_friendly_name() in wanted for op in operations):
        raise CalibrationError(
            f"expected operations to quantise ({', '.join(CARRIERS)}), got none in the encoder"
        )

    seen = 0

    def feed(index: int) -> NDArray[np.uint8]:
        nonlocal seen
        if progress is not None and index >= seen:  # the bias correction goes through the faces again
            seen = index + 1
            progress(seen)
        return crops[index : index + 1]

    with quiet_tool():
        quantised = nncf.quantize(
            model,
            nncf.Dataset(range(len(crops)), feed),
            subset_size=len(crops),
            target_device=nncf.TargetDevice.CPU,
            model_type=nncf.ModelType.TRANSFORMER if attends else None,
            ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
            **tool_arguments(recipe),
        )
    check_quantised(count_quantised(quantised), CARRIERS)
    return quantised


def tool_arguments(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe in the tool's words."""
    narrow = recipe.weights == "s8-7bit"
    smooth = -1.0 if recipe.smooth_quant is None else recipe.smooth_quant
    return {
        "preset": nncf.QuantizationPreset.PERFORMANCE if recipe.symmetric else nncf.QuantizationPreset.MIXED,
        "fast_bias_correction": recipe.bias_correction != "slow",
        "advanced_parameters": nncf.AdvancedQuantizationParameters(
            overflow_fix=nncf.OverflowFix.ENABLE if narrow else nncf.OverflowFix.DISABLE,
            disable_bias_correction=recipe.bias_correction == "none",
            activations_range_estimator_params=range_estimator(recipe.ranges),
            smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=smooth),
        ),
    }


def range_estimator(ranges: str) -> RangeEstimatorParameters:
    """Return the tool's estimator; it has no percentile over all faces, so their extremes are taken of each
    face's own percentile."""
    if ranges != "percentile":
        known = RangeEstimatorParametersSet
        return {"minmax": known.MINMAX, "mean": known.MEAN_MINMAX, "mse": known.HISTOGRAM}[ranges]
    lowest, highest = (
        StatisticsCollectorParameters(
            statistics_type=StatisticsType.QUANTILE, aggregator_type=aggregator, quantile_outlier_prob=OUTSIDE
        )
        for aggregator in (AggregatorType.MIN, AggregatorType.MAX)
    )
    return RangeEstimatorParameters(min=lowest, max=highest)


def in_modules(model: openvino.Model, encoder: Collection[str], modules: Collection[str]) -> set[str]:
    """Return the names of the encoder's operations that come from the modules or from beneath them.

    The converter leaves some operations without a name of their own, Multiply_13: they count with the first
    named one that reads them.

    Raises:
        CalibrationError: a module has no operation.
    """
    inside = set(encoder)
    module: dict[str, str] = {}
    for operation in reversed(model.get_ordered_ops()):
        name = operation.get_friendly_name()
        if name not in inside:
            continue
        if "/" in name:
            module[name] = name.partition("/")[0]
            continue
        readers = [
            target.get_node().get_friendly_name() for target in operation.output(0).get_target_inputs()
        ]
        module[name] = next((module[reader] for reader in sorted(readers) if reader in module), "")
    check_modules(modules, set(module.values()))
    return {name for name, path in module.items() if covers(modules, path)}


def before(model: openvino.Model, output: str) -> list[str]:
    """Return the names of the operations that the named output depends on, in the graph's order."""
    pending, found = [model.output(output).get_node()], set()
    while pending:
        operation = pending.pop()
        if operation.get_friendly_name() not in found:
            found.add(operation.get_friendly_name())
            pending += [value.get_source_output().get_node() for value in operation.inputs()]
    computing = [op for op in model.get_ordered_ops() if op.get_type_name() not in SILENT]
    return [op.get_friendly_name() for op in computing if op.get_friendly_name() in found]


def entrance(model: openvino.Model) -> tuple[set[str], set[str]]:
    """Return the names of the operations that only pixels pass, and of the convolutions behind them."""
    behind: set[str] = set()
    before: set[str] = set()
    first: set[str] = set()
    for operation in model.get_ordered_ops():
        name = operation.get_friendly_name()
        sources = {value.get_source_output().get_node().get_friendly_name() for value in operation.inputs()}
        carries = operation.get_type_name() in CARRIERS
        if carries and not sources & behind:
            first.add(name)
        if carries or sources & behind:
            behind.add(name)
        else:
            before.add(name)
    return before, first


def count_quantised(model: openvino.Model) -> dict[str, int]:
    """Count, by operation type, the operations all of whose inputs are 8-bit values.

    Those are outputs of a FakeQuantize, moved about perhaps, and 8-bit constants with what widens them. A
    matrix product needs only the constant: the engine quantises its other input when it runs.
    """
    return _count(op.get_type_name() for op in _computing(model) if _is_quantised(op))


def count_float(model: openvino.Model) -> dict[str, int]:
    """Count, by operation type, the operations that compute in float32."""
    return _count(op.get_type_name() for op in _computing(model) if not _is_quantised(op))


def _count(types: Iterator[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for kind in types:
        counts[kind] = counts.get(kind, 0) + 1
    return dict(sorted(counts.items()))


def _computing(model: openvino.Model) -> Iterator[openvino.Node]:
    """Yield the operations that depend on the pixels: what widens constants is folded by the engine."""
    reached: set[str] = set()
    for operation in model.get_ordered_ops():
        sources = {value.get_source_output().get_node().get_friendly_name() for value in operation.inputs()}
        if operation.get_type_name() == "Parameter" or sources & reached:
            reached.add(operation.get_friendly_name())
            if operation.get_type_name() not in SILENT:
                yield operation


def _is_quantised(operation: openvino.Node) -> bool:
    sources = [value.get_source_output().get_node() for value in operation.inputs()]
    values = [_is_8_bit_value(source) for source in sources]
    weights = [_is_8_bit_weight(source) for source in sources]
    if operation.get_type_name() == "MatMul" and any(weights):
        return True
    return any(values) and all(value or weight for value, weight in zip(values, weights, strict=True))


def _is_8_bit_value(operation: openvino.Node) -> bool:
    """Tell whether a quantiser gave these values; what only moves them may stand between."""
    kind = operation.get_type_name()
    return kind == "FakeQuantize" or (kind in MOVES and _is_8_bit_value(operation.input_value(0).get_node()))


def _is_8_bit_weight(operation: openvino.Node) -> bool:
    """Tell whether these are 8-bit constants, as they are or widened to float."""
    if operation.get_type_name() in ("Convert", "Subtract", "Multiply"):
        return _is_8_bit_weight(operation.input_value(0).get_node())
    constant = operation.get_type_name() == "Constant"
    return constant and operation.get_element_type().get_type_name() in ("i8", "u8")
