"""Static int8 quantisation of an OpenVINO graph's encoder with NNCF.

Per channel, weights s8 of 7 bits: with 8, products saturate 16-bit sums on x86 without VNNI and the same file
answers differently there. The slow bias correction changes fewer labels than the fast one.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, redirect_stdout

import nncf
import numpy as np
import openvino
from numpy.typing import NDArray

from edge_fer.errors import CalibrationError

CARRIERS = ("Convolution", "GroupConvolution", "MatMul")
# The converter fuses a whole attention into one operation where it can.
ATTENTION = ("Softmax", "ScaledDotProductAttention")
# What is no computation of its own: ends of the graph, and the quantisers.
SILENT = ("Constant", "Parameter", "Result", "FakeQuantize")
MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "MaxPool")


def quantise(
    model: openvino.Model,
    encoder: Collection[str],
    crops: NDArray[np.uint8],
    *,
    progress: Callable[[int], None] | None = None,
) -> openvino.Model:
    """Quantise the encoder's operations behind the pixel normalisation; everything else stays float32.

    Args:
        model: the float graph; it is left alone.
        encoder: names of the operations in front of the reliability head.
        crops: (N, S, S, 3) uint8 calibration faces.
        progress: called with the number of faces seen.

    Raises:
        CalibrationError: no convolution or matrix product was quantised.
    """
    operations = model.get_ordered_ops()
    wanted = set(encoder) - normalisation(model)
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

    with quiet_quantiser():
        quantised = nncf.quantize(
            model,
            nncf.Dataset(range(len(crops)), feed),
            subset_size=len(crops),
            target_device=nncf.TargetDevice.CPU,
            model_type=nncf.ModelType.TRANSFORMER if attends else None,
            ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
            fast_bias_correction=False,
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
        )
    if not any(count_quantised(quantised).get(kind) for kind in CARRIERS):
        raise CalibrationError(
            "expected quantised convolutions or matrix products, the quantiser left all of them float"
        )
    return quantised


@contextmanager
def quiet_quantiser() -> Iterator[None]:
    """Keep the quantiser's log, progress bars and warnings away from the user.

    All go to standard output; standard error stays open for the caller's own progress bar.
    """
    level = logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(level)


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


def normalisation(model: openvino.Model) -> set[str]:
    """Return the names of the operations that the pixels pass in front of the first convolution."""
    behind: set[str] = set()
    names = set()
    for operation in model.get_ordered_ops():
        sources = {value.get_source_output().get_node().get_friendly_name() for value in operation.inputs()}
        if operation.get_type_name() in CARRIERS or sources & behind:
            behind.add(operation.get_friendly_name())
        else:
            names.add(operation.get_friendly_name())
    return names


def count_quantised(model: openvino.Model) -> dict[str, int]:
    """Count, by operation type, the operations all of whose inputs are 8-bit values.

    Those are outputs of a FakeQuantize, moved about perhaps, and 8-bit constants with what widens them.
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
