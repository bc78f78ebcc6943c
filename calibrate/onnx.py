"""Static int8 quantisation of an ONNX graph's encoder with ONNX Runtime's quantiser.

QDQ, per channel, weights s8, activations u8. Weights keep 7 bits: with 8, u8 x s8 products saturate 16-bit
sums on x86 without VNNI and the same file answers differently there.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from edge_fer.errors import CalibrationError

# Without ReduceMean: it has no int8 kernel, 8 bits around it would only cost the embedding precision.
QUANTISED_TYPES = ("Conv", "Relu", "Add", "MatMul", "Gemm", "GlobalAveragePool", "MaxPool")
CARRIERS = ("Conv", "MatMul", "Gemm")
BATCH = 50


class CropReader(CalibrationDataReader):
    """Feeds crops (N, S, S, 3) uint8 to the calibrator in batches."""

    def __init__(self, crops: NDArray[np.uint8], progress: Callable[[int], None] | None) -> None:
        self.crops = crops
        self.progress = progress
        self.position = 0

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """Return the next batch, None at the end."""
        if self.position >= len(self.crops):
            return None
        batch = self.crops[self.position : self.position + BATCH]
        self.position += len(batch)
        if self.progress is not None:
            self.progress(self.position)
        return {"image": batch}


def quantise(
    model: onnx.ModelProto,
    encoder: Iterable[str],
    crops: NDArray[np.uint8],
    *,
    reduce_range: bool = True,
    progress: Callable[[int], None] | None = None,
) -> onnx.ModelProto:
    """Quantise the encoder's nodes; everything else stays float32.

    Args:
        model: the float graph.
        encoder: names of the nodes in front of the reliability head.
        crops: (N, S, S, 3) uint8 calibration faces.
        reduce_range: 7-bit weights.
        progress: called with the number of faces seen.

    Raises:
        CalibrationError: nothing was to be quantised, or the quantiser left every convolution and matrix
            product float.
    """
    wanted = set(encoder)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        with quiet_quantiser():
            quant_pre_process(source, source, skip_symbolic_shape=True)
        prepared = onnx.load(source)
        # Names survive the preparation; nodes that it fused keep the first one's.
        nodes = [n.name for n in prepared.graph.node if n.name in wanted and n.op_type in QUANTISED_TYPES]
        if not nodes:  # for the quantiser an empty list means everything, the reliability head included
            raise CalibrationError(
                f"expected nodes to quantise ({', '.join(QUANTISED_TYPES)}), got none of {len(wanted)} named"
            )
        with quiet_quantiser():
            quantize_static(
                source,
                target,
                CropReader(crops, progress),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTISED_TYPES),
                nodes_to_quantize=nodes,
                per_channel=True,
                reduce_range=reduce_range,
                weight_type=QuantType.QInt8,
                activation_type=QuantType.QUInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        quantised = onnx.load(target)
    if not any(count_quantised(quantised).get(kind) for kind in CARRIERS):
        raise CalibrationError(
            "expected quantised convolutions or matrix products, the quantiser left all of them float"
        )
    remove_leftovers(quantised)
    onnx.checker.check_model(quantised)
    return quantised


@contextmanager
def quiet_quantiser() -> Iterator[None]:
    """Keep the quantiser's advice, which is followed already, away from the user."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)


def remove_leftovers(model: onnx.ModelProto) -> None:
    """Remove the tools' notes, and the operator sets that they declare although no node uses them."""
    used = {node.domain for node in model.graph.node}
    for entry in [entry for entry in model.opset_import if entry.domain not in used]:
        model.opset_import.remove(entry)
    model.ClearField("metadata_props")
    model.ClearField("doc_string")


def count_quantised(model: onnx.ModelProto) -> dict[str, int]:
    """Count, by operator type, the nodes all of whose float inputs come out of a DequantizeLinear."""
    quantisers = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    dequantised = {output for node in quantisers for output in node.output}
    counts: dict[str, int] = {}
    for node in model.graph.node:
        tensors = [name for name in node.input if name]
        if node.op_type in QUANTISED_TYPES and tensors and all(name in dequantised for name in tensors[:2]):
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
