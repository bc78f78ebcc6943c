"""What of an encoder that attends is quantised: weights and maps, not scores, tokens or pooled vectors."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from calibrate.onnx import DEFAULT, QUANTISED_TYPES, choose_nodes

MAPS = ("Conv_2", "Relu", "Add_shift", "MaxPool", "Mul_slope")
WEIGHTED = ("Gemm_query", "MatMul_key")
FLOAT = ("Sub_pixels", "Conv_1", "MatMul_scores", "Add_bias", "MatMul_values", "Add_tokens", "Add_norm")


def attending_graph() -> onnx.ModelProto:
    """Write pixels, two convolutions, tokens, attention and a sum; nodes are named after their parts."""

    def node(name: str, inputs: list[str], **attributes: object) -> onnx.NodeProto:
        return helper.make_node(name.partition("_")[0], inputs, [name], name=f"encoder/{name}", **attributes)

    nodes = [
        node("Sub_pixels", ["image", "mean"]),
        node("Conv_1", ["Sub_pixels", "w"]),
        node("Conv_2", ["Conv_1", "w"]),
        node("Relu", ["Conv_2"]),
        node("Add_shift", ["Relu", "offset"]),
        node("MaxPool", ["Add_shift"], kernel_shape=[1, 1]),
        node("Mul_slope", ["MaxPool", "offset"]),
        node("Reshape", ["Mul_slope", "rows"]),
        node("Gemm_query", ["Reshape", "square"]),
        node("MatMul_key", ["Reshape", "square"]),
        node("MatMul_scores", ["Gemm_query", "MatMul_key"]),
        node("Add_bias", ["MatMul_scores", "square"]),
        node("Softmax", ["Add_bias"]),
        node("MatMul_values", ["Softmax", "MatMul_key"]),
        node("Add_tokens", ["MatMul_values", "Reshape"]),
        node("LayerNormalization", ["Add_tokens", "gamma"]),
        node("Add_norm", ["LayerNormalization", "Reshape"]),
    ]
    shapes = {
        "mean": (1, 3, 1, 1),
        "w": (3, 3, 1, 1),
        "offset": (1, 3, 1, 1),
        "square": (3, 3),
        "gamma": (3,),
    }
    tensors = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in shapes.items()]
    tensors.append(numpy_helper.from_array(np.array([-1, 3]), "rows"))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 1, 3])
    output = helper.make_tensor_value_info("Add_norm", TensorProto.FLOAT, [3, 3])
    model = helper.make_model(
        helper.make_graph(nodes, "attending", [image], [output], tensors),
        opset_imports=[helper.make_opsetid("", 20)],
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def test_onnx_quantises_weights_and_maps_alone() -> None:
    model = attending_graph()
    chosen = choose_nodes(model, [node.name for node in model.graph.node], DEFAULT, QUANTISED_TYPES)
    assert {name.partition("/")[2] for name in chosen} == {*MAPS, *WEIGHTED}


def test_every_kind_of_node_is_among_those_asked_about() -> None:
    named = {node.name.partition("/")[2] for node in attending_graph().graph.node}
    assert named - {"Reshape", "Softmax", "LayerNormalization"} == {*MAPS, *WEIGHTED, *FLOAT}


def test_tflite_quantises_weights_and_maps_alone() -> None:
    torch = pytest.importorskip("torch")
    litert_torch = pytest.importorskip("litert_torch")
    from calibrate.tflite import choose_operators

    class Encoder(torch.nn.Module):
        """Two convolutions, attention over their places, a sum of tokens and a norm."""

        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Conv2d(3, 8, 1)
            self.second = torch.nn.Conv2d(8, 8, 1)
            self.key = torch.nn.Linear(8, 8)
            self.norm = torch.nn.LayerNorm(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = self.first(x)
            tokens = (self.second(first) + first).flatten(2).transpose(1, 2)
            key = self.key(tokens)
            attended = (tokens @ key.transpose(1, 2) + 1.0).softmax(dim=-1) @ key
            return self.norm(tokens + attended)

    graph = litert_torch.convert(Encoder().eval(), (torch.zeros(1, 3, 6, 6),)).model_content()
    kinds = sorted(choose_operators(bytes(graph), ".", float_first=True).values())
    assert kinds == ["ADD", "CONV_2D", "FULLY_CONNECTED"]
