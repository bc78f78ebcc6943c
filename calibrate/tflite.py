"""Static int8 quantisation of a TFLite graph's encoder with AI Edge Quantizer: s8 weights, s8 activations.

Weights have one scale per output channel. What takes part in the encoder is told by the graph's tensor names.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import numpy as np
from ai_edge_quantizer import qtyping, quantizer
from ai_edge_quantizer.utils import tfl_flatbuffer_utils
from numpy.typing import NDArray

from edge_fer.errors import CalibrationError
from edge_fer.native_log import without_information

# Without MEAN: 8 bits around it would only cost the embedding precision.
QUANTISED_TYPES = (
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "BATCH_MATMUL",
    "ADD",
    "PAD",
    "MAX_POOL_2D",
    "AVERAGE_POOL_2D",
)
CARRIERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL")
_BRIDGES = ("QUANTIZE", "DEQUANTIZE")
_NAMES = {code: name for name, code in vars(qtyping.BuiltinOperator).items() if not name.startswith("_")}


def quantise(
    graph: bytes,
    encoder: str,
    crops: NDArray[np.uint8],
    *,
    progress: Callable[[int], None] | None = None,
) -> bytes:
    """Quantise the encoder's operators; everything else stays float32.

    Args:
        graph: the float TFLite graph: one signature, input `image` uint8 (1, S, S, 3).
        encoder: regular expression for the names of the tensors that the encoder's operators write.
        crops: (N, S, S, 3) uint8 calibration faces.
        progress: called with the number of faces seen.

    Raises:
        CalibrationError: nothing was to be quantised, or the quantiser left every convolution and matrix
            product float.
    """
    chosen = choose_operators(graph, encoder)
    if not chosen:
        raise CalibrationError(
            f"expected operators to quantise ({', '.join(QUANTISED_TYPES)}), got none named {encoder}"
        )
    with quiet_logs():
        with quiet_streams():
            tool = quantizer.Quantizer(bytearray(graph))
            add_recipes(tool, chosen)
        with ExitStack() as quiet:
            quiet.enter_context(quiet_streams())
            # Once it has counted the faces the tool keeps to what it has, and our own bar needs the terminal.
            faces = Faces(crops, progress, quiet.close)
            ranges = tool.calibrate({signature(graph): faces}, num_threads=1)
        with quiet_streams():
            result = tool.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    assert result.quantized_model is not None
    quantised = bytes(result.quantized_model)
    if not any(count_quantised(quantised).get(kind) for kind in CARRIERS):
        raise CalibrationError(
            "expected quantised convolutions or matrix products, the quantiser left all of them float"
        )
    return quantised


def add_recipes(tool: Any, chosen: Mapping[str, str]) -> None:
    """Ask for static int8 in exactly the operators that were chosen: output name to type."""
    for kind in sorted(set(chosen.values())):
        names = "|".join(re.escape(name) for name, own in chosen.items() if own == kind)
        # The pattern is searched in the names of an operator's outputs, each followed by a semicolon.
        tool.add_static_config(
            regex=f"^(?:{names});?$",
            operation_name=qtyping.TFLOperationName(kind),
            activation_num_bits=8,
            weight_num_bits=8,
        )


class Faces:
    """Crops as the calibrator reads them, one at a time; it goes over them twice, first to count.

    Args:
        crops: (N, S, S, 3) uint8 RGB.
        progress: called with the number of faces seen, the second time.
        counted: called before the second time.
    """

    def __init__(
        self,
        crops: NDArray[np.uint8],
        progress: Callable[[int], None] | None,
        counted: Callable[[], None] | None = None,
    ) -> None:
        self.crops = crops
        self.progress = progress
        self.counted = counted
        self.rounds = 0

    def __iter__(self) -> Iterator[dict[str, NDArray[np.uint8]]]:
        self.rounds += 1
        if self.rounds == 2 and self.counted is not None:
            self.counted()
        for number in range(len(self.crops)):
            yield {"image": self.crops[number : number + 1]}
            if self.rounds == 2 and self.progress is not None:
                self.progress(number + 1)


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Keep the quantiser's logs and warnings away from the user."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextmanager
def quiet_streams() -> Iterator[None]:
    """Keep the quantiser's bars and reports, and what the interpreter writes, away from the user."""
    nowhere = io.StringIO()
    with redirect_stdout(nowhere), redirect_stderr(nowhere), without_information():
        yield


def operators(graph: bytes) -> Iterator[tuple[str, list[Any], list[Any]]]:
    """Yield type, input tensors (the absent ones left out) and output tensors of every operator."""
    model = tfl_flatbuffer_utils.read_model(bytearray(graph))
    for subgraph in model.subgraphs:
        for operator in subgraph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            kind = _NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]
            inputs = [subgraph.tensors[index] for index in operator.inputs if index >= 0]
            yield kind, inputs, [subgraph.tensors[index] for index in operator.outputs]


def constants(graph: bytes) -> set[int]:
    """Return the numbers of the buffers that hold something: those of constant tensors."""
    model = tfl_flatbuffer_utils.read_model(bytearray(graph))
    return {
        number for number, buffer in enumerate(model.buffers) if buffer.data is not None and len(buffer.data)
    }


def signature(graph: bytes) -> str:
    """Return the name of the graph's one signature."""
    model = tfl_flatbuffer_utils.read_model(bytearray(graph))
    (only,) = model.signatureDefs
    key = only.signatureKey
    return key.decode() if isinstance(key, bytes) else str(key)


def choose_operators(graph: bytes, encoder: str) -> dict[str, str]:
    """Return output name to type of the encoder's operators that have int8 kernels worth using.

    An addition of a constant is left out: it is what a BatchNorm behind the pooling becomes, and its result,
    the embedding, is what the float head starts from.
    """
    filled = constants(graph)
    chosen: dict[str, str] = {}
    for kind, inputs, outputs in operators(graph):
        name = outputs[0].name.decode() if isinstance(outputs[0].name, bytes) else str(outputs[0].name)
        if kind not in QUANTISED_TYPES or not re.search(encoder, name):
            continue
        if kind == "ADD" and any(tensor.buffer in filled for tensor in inputs):
            continue
        chosen[name] = kind
    return chosen


def count_quantised(graph: bytes) -> dict[str, int]:
    """Count, by operator type, the operators that read and write int8."""
    counts: dict[str, int] = {}
    for kind, inputs, outputs in operators(graph):
        if kind in QUANTISED_TYPES and _is_int8(inputs[0]) and _is_int8(outputs[0]):
            counts[kind] = counts.get(kind, 0) + 1
    return dict(sorted(counts.items()))


def count_float(graph: bytes) -> dict[str, int]:
    """Count, by operator type, the other operators; the quantisers themselves are left out."""
    counts: dict[str, int] = {}
    for kind, _, _ in operators(graph):
        if kind not in _BRIDGES:
            counts[kind] = counts.get(kind, 0) + 1
    rest = {kind: count - count_quantised(graph).get(kind, 0) for kind, count in counts.items()}
    return {kind: count for kind, count in sorted(rest.items()) if count}


def _is_int8(tensor: Any) -> bool:
    return bool(tensor.type == qtyping.TensorType.INT8)
