"""Make the graphs of the runtime's tests; `python tests/models/make_tiny_onnx.py` writes them beside itself.

tiny.onnx keeps the contract of a bundle (16 pixels, 8 classes), foreign.onnx breaks it in every way. Nothing
in them is trained or random: the weights follow from a formula, and the same onnx writes the same bytes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
SIZE = 16
CLASSES = 8


def tiny() -> bytes:
    """Return a graph of the contract: the mean colours of four quarters, one linear layer, two softmaxes."""
    features = 4 * 3
    rule = np.arange(features * CLASSES, dtype=np.float32).reshape(features, CLASSES)
    constants = {
        "scale": np.float32(1 / 255),
        "weight": (4 * np.sin(1 + rule * rule)).astype(np.float32),
        "flat": np.array([-1, features], np.int64),
        "half": np.float32(0.5),
        "one": np.float32(1),
        "tiny": np.float32(1e-12),
        "log_classes": np.float32(np.log(CLASSES)),
        "classes_axis": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["quarters"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Reshape", ["quarters", "flat"], ["features"]),
        helper.make_node("MatMul", ["features", "weight"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("Mul", ["logits", "half"], ["halved"]),
        helper.make_node("Softmax", ["halved"], ["primary"], axis=1),
        helper.make_node("Max", ["probabilities", "tiny"], ["positive"]),
        helper.make_node("Log", ["positive"], ["logarithm"]),
        helper.make_node("Mul", ["probabilities", "logarithm"], ["terms"]),
        helper.make_node("ReduceSum", ["terms", "classes_axis"], ["negative_entropy"], keepdims=0),
        helper.make_node("Div", ["negative_entropy", "log_classes"], ["normalised"]),
        helper.make_node("Add", ["normalised", "one"], ["reliability"]),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", SIZE, SIZE, 3])]
    outputs = [
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", CLASSES]),
        helper.make_tensor_value_info("primary", TensorProto.FLOAT, ["N", CLASSES]),
        helper.make_tensor_value_info("reliability", TensorProto.FLOAT, ["N"]),
    ]
    return _serialise("tiny", nodes, inputs, outputs, constants)


def foreign() -> bytes:
    """Return a graph that runs and keeps no part of the contract: names, type, layout, outputs."""
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, SIZE, SIZE])]
    outputs = [helper.make_tensor_value_info("primary", TensorProto.FLOAT, [1, 3, SIZE, SIZE])]
    return _serialise("foreign", [helper.make_node("Relu", ["input"], ["primary"])], inputs, outputs, {})


def _serialise(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, np.ndarray],
) -> bytes:
    initialisers = [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, initialisers)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="edge-fer tests"
    )
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


if __name__ == "__main__":
    folder = Path(__file__).parent
    (folder / "tiny.onnx").write_bytes(tiny())
    (folder / "foreign.onnx").write_bytes(foreign())
