"""Float constants of an ONNX graph in half precision, widened by a Cast that the engine folds."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.half import SMALLEST


def halve(model: onnx.ModelProto, nodes: Collection[str]) -> onnx.ModelProto:
    """Return a copy whose large float32 constants that only the named nodes read are float16.

    Args:
        model: the graph, with its constants as initialisers.
        nodes: names of the nodes whose constants may lose digits; the others keep theirs.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    graph = copied.graph
    kept = {name for node in graph.node if node.name not in nodes for name in node.input}
    kept |= {name for node in graph.node if node.op_type.endswith("QuantizeLinear") for name in node.input}
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or tensor.name in kept:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < SMALLEST or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        wide, narrow = tensor.name, f"{tensor.name}/half"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), narrow))
        graph.node.insert(
            0, helper.make_node("Cast", [narrow], [wide], name=f"{wide}/Cast", to=TensorProto.FLOAT)
        )
    onnx.checker.check_model(copied)
    return copied
