"""Float16 constants: half the size, the head left alone, answers of a network whose weights were rounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import flatbuffers
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge_fer.engines.base import Engine
from export import rewrites
from export.half import SMALLEST
from export.reference import TorchAnswers
from export.rewrites import rewrite
from export.target import Graph
from tests.conftest import MODELS
from training.models import ExpressionNetwork

from .conftest import SIZE, TARGETS, Converter, pictures

REWRITES = {"onnx": rewrites.ONNX, "openvino": rewrites.OPENVINO, "tflite": rewrites.TFLITE}
SIDE = 64
assert SIDE * SIDE == SMALLEST


def constants(target: str, graph: Graph) -> list[NDArray[np.floating]]:
    """Return every float constant that the graph's files hold."""
    if target == "onnx":
        model = onnx.load_from_string(graph.members["model.onnx"])
        found = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    elif target == "openvino":
        found = [node.data for node in openvino_constants(graph)]
    else:
        found = list(tflite_constants(graph.members["model.tflite"]))
    return [array for array in found if array.dtype in (np.float32, np.float16)]


def openvino_constants(graph: Graph) -> Iterator[object]:
    import openvino

    model = openvino.Core().read_model(graph.members["model.xml"], graph.members["model.bin"])
    return (node for node in model.get_ordered_ops() if node.get_type_name() == "Constant")


def tflite_constants(graph: bytes) -> Iterator[NDArray[np.generic]]:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(graph))
    kinds = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.FLOAT16: np.float16}
    (subgraph,) = model.subgraphs
    for number in sorted({tensor.buffer for tensor in subgraph.tensors}):
        (kind, *_) = {tensor.type for tensor in subgraph.tensors if tensor.buffer == number}
        data = model.buffers[number].data
        if kind in kinds and data is not None:
            yield np.frombuffer(bytes(data), kinds[kind])


def load(target: str, graph: Graph) -> Engine:
    """Load a graph on its own engine, computing in float32."""
    if target == "onnx":
        from edge_fer.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine.from_bytes(graph.members["model.onnx"])
    if target == "openvino":
        from edge_fer.engines.openvino import OpenVinoEngine

        return OpenVinoEngine.from_bytes(graph.members["model.xml"], graph.members["model.bin"])
    from edge_fer.engines.tflite import TfliteEngine

    return TfliteEngine.from_bytes(graph.members["model.tflite"])


def counted(arrays: list[NDArray[np.floating]]) -> Counter[bytes]:
    return Counter(array.tobytes() for array in arrays)


@pytest.mark.parametrize("target", TARGETS)
def test_large_constants_of_the_encoder_are_halved_and_no_other_is_touched(
    target: str, convert: Converter, small: ExpressionNetwork
) -> None:
    exact, half = convert(target).float_graph(), convert(target).half_graph()
    before, after = constants(target, exact), constants(target, half)
    narrow = [array for array in after if array.dtype == np.float16]
    wide = [array for array in after if array.dtype == np.float32]
    assert len(narrow) == 14 - 1  # of fifteen kernels, those of the stem and of one shortcut are small
    assert min(array.size for array in narrow) >= SMALLEST
    # Every float16 array is one float32 array rounded, and what is left is as it was.
    rounded = counted([array.astype(np.float16) for array in before])
    assert counted(narrow) <= rounded
    assert counted(wide) <= counted(before) and len(wide) + len(narrow) == len(before)
    # Three of the head's products, one of them with the BatchNorm behind it, and its anchors.
    large = [np.sort(np.abs(array), axis=None) for array in wide if array.size >= SMALLEST]
    assert len(large) == 4
    for own in (small.head.anchor_correction.anchors, small.head.attentive_correction.value.weight):
        assert np.sort(np.abs(own.detach().numpy()), axis=None).tobytes() in counted(large)
    assert 0.5 < half.size_bytes / exact.size_bytes < 0.6
    assert (half.quantisation, half.quantised_ops, half.float_ops) == ("none", {}, exact.float_ops)
    assert half.float_compute == ("bf16" if target == "openvino" else "fp32")


@pytest.mark.parametrize("target", TARGETS)
def test_it_answers_as_a_network_whose_weights_were_rounded(
    target: str, convert: Converter, small: ExpressionNetwork
) -> None:
    network = rewrite(small, REWRITES[target])
    with torch.no_grad():
        for value in network.encoder.parameters():
            if value.numel() >= SMALLEST:
                value.copy_(value.half().float())
    crops = pictures(SIZE)
    expected, exact = TorchAnswers(network)(crops), TorchAnswers(small)(crops)
    got = load(target, convert(target).half_graph()).run(crops)
    np.testing.assert_allclose(got.probabilities, expected.probabilities, rtol=0, atol=1e-5)
    np.testing.assert_allclose(got.reliability, expected.reliability, rtol=0, atol=1e-5)
    change = np.abs(got.probabilities - exact.probabilities).max()
    assert 5e-5 < change < 5e-3  # the rounding is seen, and is one of eleven bits


def onnx_products(*weights: NDArray[np.float32]) -> onnx.ModelProto:
    """Return a graph of products with each matrix in turn: the nodes are 0, 1 ..., the matrices w0, w1 ..."""
    nodes = [
        helper.make_node("MatMul", [f"x{number}", f"w{number}"], [f"x{number + 1}"], name=str(number))
        for number in range(len(weights))
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", None])
        for name in ("x0", f"x{len(weights)}")
    ]
    tensors = [numpy_helper.from_array(weight, f"w{number}") for number, weight in enumerate(weights)]
    graph = helper.make_graph(nodes, "products", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def matrices() -> list[NDArray[np.float32]]:
    """Return an ordinary matrix, one with a value beyond float16, one that is too small, and one more."""
    generator = np.random.default_rng(0)
    drawn = [generator.normal(size=(SIDE, width)).astype(np.float32) for width in (SIDE, SIDE, SIDE - 1)]
    drawn[1][3, 5] = -65536
    return [*drawn, generator.normal(size=(SIDE - 1, SIDE + 2)).astype(np.float32)]


def test_onnx_keeps_what_is_beyond_float16_small_or_read_by_others() -> None:
    from export.half.onnx import halve

    model = onnx_products(*matrices())
    found = {item.name: item.data_type for item in halve(model, ["0", "1", "2"]).graph.initializer}
    wide, narrow = TensorProto.FLOAT, TensorProto.FLOAT16
    assert found == {"w0/half": narrow, "w1": wide, "w2": wide, "w3": wide}
    assert {item.data_type for item in model.graph.initializer} == {wide}  # the graph itself is left alone
    model.graph.node[3].input[1] = "w0"  # the head reads it, too
    assert "w0" in {item.name for item in halve(model, ["0", "1", "2"]).graph.initializer}


def test_openvino_keeps_what_is_beyond_float16_small_or_read_by_others() -> None:
    openvino = pytest.importorskip("openvino")
    from openvino import opset13 as ops

    from export.half.openvino import halve

    def types(*, shared: bool) -> list[str]:
        x = ops.parameter([-1, SIDE], np.float32, name="x")
        made = [ops.constant(matrix) for matrix in matrices()]
        value = x
        for number, matrix in enumerate([*made, made[0]] if shared else made):
            value = ops.matmul(value, matrix, False, number == 4, name=str(number))
            if number == 3:
                value = ops.slice(value, [0], [SIDE], [1], [1])
        model = openvino.Model([value], [x], "products")
        halved = halve(model, ["0", "1", "2"])
        assert {node.get_element_type().get_type_name() for node in made} == {"f32"}
        found = [node for node in halved.get_ordered_ops() if node.get_type_name() == "Constant"]
        return sorted(n.get_element_type().get_type_name() for n in found if n.data.size >= SMALLEST - SIDE)

    assert types(shared=False) == ["f16", "f32", "f32", "f32"]
    assert types(shared=True) == ["f32"] * 4


def test_tflite_keeps_what_is_beyond_float16(convert: Converter) -> None:
    graph = convert("tflite").float_graph().members["model.tflite"]
    from ai_edge_litert import schema_py_generated as schema

    from export.half.tflite import halve
    from export.tflite import ENCODER

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(graph))
    largest = max((b for b in model.buffers if b.data is not None), key=lambda buffer: len(buffer.data))
    values = np.frombuffer(bytes(largest.data), np.float32).copy()
    values[7] = 65536
    largest.data = values.view(np.uint8)
    builder = flatbuffers.Builder(len(graph))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    halved = list(tflite_constants(halve(bytes(builder.Output()), ENCODER)))
    assert values.tobytes() in counted(halved)
    assert sum(array.dtype == np.float16 for array in halved) == 12


def test_a_graph_without_large_constants_comes_back_equal() -> None:
    from export.half.onnx import halve

    model = onnx.load(MODELS / "tiny.onnx")
    assert halve(model, [node.name for node in model.graph.node]) == model


def test_a_tflite_graph_without_large_constants_comes_back_equal() -> None:
    pytest.importorskip("ai_edge_quantizer")
    from export.half.tflite import halve

    graph = (MODELS / "tiny.tflite").read_bytes()
    assert halve(graph, "") == graph


def test_an_openvino_graph_without_large_constants_comes_back_equal() -> None:
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    from export.half.openvino import halve
    from export.openvino import members

    model = openvino.Core().read_model(MODELS / "tiny.xml")
    operations = [node.get_friendly_name() for node in model.get_ordered_ops()]
    assert members(halve(model, operations)) == members(model)
