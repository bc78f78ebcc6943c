"""Float constants of a TFLite graph in half precision, widened by a DEQUANTIZE that XNNPACK folds."""

from __future__ import annotations

import re
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_quantizer.utils import tfl_flatbuffer_utils

from export.half import SMALLEST

_IDENTIFIER = b"TFL3"


def halve(graph: bytes, names: str) -> bytes:
    """Return the graph with the large float32 constants of the named operators in float16.

    Args:
        graph: the TFLite graph.
        names: regular expression for the names of the tensors that the operators write whose constants may
            lose digits; a constant that another operator reads, too, keeps its own.
    """
    model = tfl_flatbuffer_utils.read_model(bytearray(graph))
    (subgraph,) = model.subgraphs
    read: set[int] = set()
    kept: set[int] = set(subgraph.outputs)
    for operator in subgraph.operators:
        encoder = re.search(names, subgraph.tensors[operator.outputs[0]].name.decode())
        (read if encoder else kept).update(operator.inputs)
    narrow = {index: tensor for index in sorted(read - kept - {-1}) if (tensor := _half(model, index))}
    if not narrow:
        return graph
    wideners = []
    for index, tensor in narrow.items():
        # The constant's own place becomes the widened value, so that no operator has to change.
        subgraph.tensors.append(tensor)
        _empty(model, index)
        widener = schema.OperatorT()
        widener.opcodeIndex = _dequantize(model)
        widener.inputs, widener.outputs = [len(subgraph.tensors) - 1], [index]
        wideners.append(widener)
    subgraph.operators = [*wideners, *subgraph.operators]  # operators run in their order
    builder = flatbuffers.Builder(len(graph))
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _empty(model: Any, index: int) -> None:
    """Take a tensor's constant values away, from the file too where no other tensor has the same ones."""
    (subgraph,) = model.subgraphs
    number = subgraph.tensors[index].buffer
    subgraph.tensors[index].buffer = 0
    if all(tensor.buffer != number for tensor in subgraph.tensors):
        model.buffers[number].data = None


def _half(model: Any, index: int) -> Any:
    """Return a new float16 tensor with a constant's values; None for what is no large float32 constant."""
    (subgraph,) = model.subgraphs
    wide = subgraph.tensors[index]
    data = model.buffers[wide.buffer].data
    if wide.type != schema.TensorType.FLOAT32 or data is None or len(data) < 4 * SMALLEST:
        return None
    values = np.frombuffer(bytes(data), np.float32)
    if np.abs(values).max() > np.finfo(np.float16).max:
        return None
    buffer, tensor = schema.BufferT(), schema.TensorT()
    buffer.data = values.astype(np.float16).view(np.uint8)
    model.buffers.append(buffer)
    tensor.name, tensor.shape = wide.name + b"/half", wide.shape
    tensor.type, tensor.buffer = schema.TensorType.FLOAT16, len(model.buffers) - 1
    return tensor


def _dequantize(model: Any) -> int:
    """Return the number of the operator code DEQUANTIZE, added where the graph has none."""
    code = schema.BuiltinOperator.DEQUANTIZE
    for number, known in enumerate(model.operatorCodes):
        if max(known.builtinCode, known.deprecatedBuiltinCode) == code:
            return number
    added = schema.OperatorCodeT()
    added.builtinCode = added.deprecatedBuiltinCode = code
    added.version = 2  # the first that reads float16
    model.operatorCodes.append(added)
    return len(model.operatorCodes) - 1
