"""Static quantisation of an encoder: what is quantised, what stays float, and never silently nothing."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from calibrate.onnx import BATCH, CropReader, count_float, count_quantised, quantise
from edge_fer.engines.onnxruntime import OnnxRuntimeEngine
from edge_fer.errors import CalibrationError

SIZE = 12
ENCODER = ["enc/Transpose", "enc/Cast", "enc/Conv", "enc/Relu", "enc/Conv_2", "enc/Add", "enc/Relu_2"]
ENCODER += ["enc/GlobalAveragePool", "enc/Flatten"]


def make_model() -> onnx.ModelProto:
    """Build a residual encoder and a head of two linear layers, with weights drawn here."""
    generator = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        fan_in = int(np.prod(shape[1:])) or 1
        return numpy_helper.from_array(
            (generator.normal(size=shape) / np.sqrt(fan_in)).astype(np.float32), name
        )

    def node(name: str, inputs: list[str], output: str, **attributes: object) -> onnx.NodeProto:
        kind = name.rpartition("/")[2].split("_")[0]
        return helper.make_node(kind, inputs, [output], name=name, **attributes)

    nodes = [
        node("enc/Transpose", ["image"], "chw", perm=[0, 3, 1, 2]),
        node("enc/Cast", ["chw"], "pixels", to=TensorProto.FLOAT),
        node("enc/Conv", ["pixels", "w1", "b1"], "a", pads=[1, 1, 1, 1]),
        node("enc/Relu", ["a"], "b"),
        node("enc/Conv_2", ["b", "w2", "b2"], "c", pads=[1, 1, 1, 1]),
        node("enc/Add", ["c", "b"], "d"),
        node("enc/Relu_2", ["d"], "e"),
        node("enc/GlobalAveragePool", ["e"], "f"),
        node("enc/Flatten", ["f"], "embedding"),
        node("head/Gemm", ["embedding", "w3"], "g", transB=1),
        node("head/Relu", ["g"], "h"),
        node("head/Gemm_2", ["h", "w4"], "i", transB=1),
        node("head/Softmax", ["i"], "probabilities"),
        node("head/Softmax_2", ["g"], "primary"),
        node("head/ReduceMax", ["probabilities", "last"], "reliability", keepdims=0),
    ]
    last = numpy_helper.from_array(np.array([1], np.int64), "last")
    tensors = [weight("w1", 8, 3, 3, 3), weight("b1", 8), weight("w2", 8, 8, 3, 3), weight("b2", 8)]
    # The head's weights would be cut to the same 7 bits if it were quantised.
    tensors += [weight("w3", 8, 8), weight("w4", 8, 8), last]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", SIZE, SIZE, 3])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("probabilities", ["N", 8]), ("primary", ["N", 8]), ("reliability", ["N"]))
    ]
    graph = helper.make_graph(nodes, "tiny", [image], outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return make_model()


@pytest.fixture(scope="module")
def crops() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (120, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def quantised(model: onnx.ModelProto, crops: NDArray[np.uint8]) -> onnx.ModelProto:
    return quantise(model, ENCODER, crops)


def weights(model: onnx.ModelProto) -> list[NDArray[np.int8]]:
    arrays = [
        numpy_helper.to_array(item) for item in model.graph.initializer if item.data_type == TensorProto.INT8
    ]
    return [array for array in arrays if array.ndim == 4]


def test_the_encoder_is_quantised_and_the_head_is_not(quantised: onnx.ModelProto) -> None:
    dequantised = {o for n in quantised.graph.node if n.op_type == "DequantizeLinear" for o in n.output}
    readers = [node for node in quantised.graph.node if dequantised & set(node.input)]
    assert [node.name for node in readers if node.name.startswith("head")] == []
    assert {"enc/Conv", "enc/Conv_2", "enc/Add", "enc/GlobalAveragePool"} <= {node.name for node in readers}
    for node in quantised.graph.node:
        if node.op_type == "Conv":
            assert set(node.input) <= dequantised


def test_the_counts_are_those_of_the_drawing(quantised: onnx.ModelProto, model: onnx.ModelProto) -> None:
    # Both ReLUs are gone: an activation whose zero point is its minimum cannot be negative.
    assert count_quantised(quantised) == {"Add": 1, "Conv": 2, "GlobalAveragePool": 1}
    expected = {"Cast": 1, "Flatten": 1, "Gemm": 2, "ReduceMax": 1, "Relu": 1, "Softmax": 2, "Transpose": 1}
    assert count_float(quantised) == expected
    assert count_quantised(model) == {}
    assert sum(count_float(model).values()) == len(model.graph.node)


def test_the_graph_stays_within_what_old_engines_read(quantised: onnx.ModelProto) -> None:
    onnx.checker.check_model(quantised, full_check=True)
    assert quantised.ir_version <= 10
    assert [(entry.domain, entry.version) for entry in quantised.opset_import] == [("", 20)]
    assert not len(quantised.metadata_props)
    assert b"/tmp" not in quantised.SerializeToString()


def test_weights_keep_seven_bits_unless_told_otherwise(
    quantised: onnx.ModelProto, model: onnx.ModelProto, crops: NDArray[np.uint8]
) -> None:
    narrow, wide = weights(quantised), weights(quantise(model, ENCODER, crops[:20], reduce_range=False))
    assert len(narrow) == len(wide) == 2
    for kernel in narrow:
        assert kernel.min() >= -64 and kernel.max() <= 64
        assert (np.abs(kernel.reshape(8, -1).astype(int)).max(axis=1) >= 63).all()  # per channel
    assert max(np.abs(kernel.astype(int)).max() for kernel in wide) > 120


def test_int8_is_close_to_float(
    quantised: onnx.ModelProto, model: onnx.ModelProto, crops: NDArray[np.uint8]
) -> None:
    expected = OnnxRuntimeEngine.from_bytes(model.SerializeToString()).run(crops)
    got = OnnxRuntimeEngine.from_bytes(quantised.SerializeToString()).run(crops)
    assert 0 < np.abs(got.probabilities - expected.probabilities).max() < 0.15
    assert np.abs(got.probabilities - expected.probabilities).mean() < 0.01
    assert (got.probabilities.argmax(axis=1) == expected.probabilities.argmax(axis=1)).mean() > 0.9


def test_the_same_input_gives_the_same_bytes(
    quantised: onnx.ModelProto, model: onnx.ModelProto, crops: NDArray[np.uint8]
) -> None:
    again = quantise(model, ENCODER, crops)
    assert again.SerializeToString(deterministic=True) == quantised.SerializeToString(deterministic=True)


def test_the_faces_decide_the_ranges(
    quantised: onnx.ModelProto, model: onnx.ModelProto, crops: NDArray[np.uint8]
) -> None:
    dark = quantise(model, ENCODER, crops // 4)
    assert dark.SerializeToString(deterministic=True) != quantised.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([], "got none of 0 named"),
        (["enc/Transpose", "somewhere/Conv"], "got none of 2 named"),
        (["enc/Relu", "enc/Add", "enc/GlobalAveragePool"], "left all of them float"),
    ],
)
def test_nothing_quantised_is_an_error(
    model: onnx.ModelProto, crops: NDArray[np.uint8], nodes: list[str], said: str
) -> None:
    with pytest.raises(CalibrationError, match=said):
        quantise(model, nodes, crops[:10])


def test_the_float_graph_is_left_alone(model: onnx.ModelProto, quantised: onnx.ModelProto) -> None:
    assert model.SerializeToString(deterministic=True) == make_model().SerializeToString(deterministic=True)
    assert len(quantised.graph.node) > len(model.graph.node)


def test_the_quantiser_is_quiet_and_logging_is_as_before(
    model: onnx.ModelProto, crops: NDArray[np.uint8], capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []
    quantise(model, ENCODER, crops[:60], progress=seen.append)
    assert seen == [50, 60]
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET


def test_the_reader_gives_every_face_once(crops: NDArray[np.uint8]) -> None:
    reader = CropReader(crops, None)
    batches = []
    while (batch := reader.get_next()) is not None:
        batches.append(batch["image"])
    assert [len(batch) for batch in batches] == [BATCH, BATCH, 20]
    np.testing.assert_array_equal(np.concatenate(batches), crops)
