"""Dynamic int8 for ONNX: products quantised at run time, each row by itself, and never silently nothing."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from calibrate.onnx import count_float, count_quantised
from calibrate.onnx_dynamic import BLOCK, quantise_dynamic
from edge_fer.errors import CalibrationError

WIDTH = 192  # one block and a half
ENCODER = ["enc.first/MatMul", "enc.first/Relu", "enc.second/MatMul"]


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    generator = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array((generator.normal(size=(WIDTH, WIDTH)) / 14).astype(np.float32), name)
        for name in ("w1", "w2", "w3")
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="enc.first/MatMul"),
        helper.make_node("Relu", ["a"], ["b"], name="enc.first/Relu"),
        helper.make_node("MatMul", ["b", "w2"], ["c"], name="enc.second/MatMul"),
        helper.make_node("MatMul", ["c", "w3"], ["y"], name="head/MatMul"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, WIDTH]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "products", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float32]:
    # Rows of very different size: a range over the batch would drown the small ones.
    scale = np.array([1e-3, 1, 1e3, 30], np.float32)[:, None, None]
    return (np.random.default_rng(1).normal(size=(4, 3, WIDTH)) * scale).astype(np.float32)


def run(model: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def test_the_products_of_the_encoder_are_quantised_and_the_head_is_not(model: onnx.ModelProto) -> None:
    found = quantise_dynamic(model, ENCODER)
    onnx.checker.check_model(found)
    assert count_quantised(found) == {"MatMulNBits": 2}
    assert count_float(found) == {"MatMul": 1, "Relu": 1}
    for node in found.graph.node:
        if node.op_type == "MatMulNBits":
            settings = {item.name: item.i for item in node.attribute}
            assert (settings["bits"], settings["block_size"], settings["accuracy_level"]) == (8, BLOCK, 4)
    assert count_quantised(model) == {}  # the float graph is left alone
    assert found.ByteSize() < 0.6 * model.ByteSize()


def test_a_row_does_not_depend_on_its_batch(model: onnx.ModelProto, rows: NDArray[np.float32]) -> None:
    found = quantise_dynamic(model, ENCODER)
    together, expected = run(found, rows), run(model, rows)
    for index in range(len(rows)):
        spread = np.abs(expected[index]).max()
        alone = run(found, rows[index : index + 1])[0]
        np.testing.assert_allclose(together[index], alone, rtol=0, atol=1e-5 * spread)
        assert 1e-4 < np.abs(together[index] - expected[index]).max() / spread < 0.05


def test_modules_stay_float_when_asked(model: onnx.ModelProto) -> None:
    assert count_quantised(quantise_dynamic(model, ENCODER, float_modules={"enc.first"})) == {
        "MatMulNBits": 1
    }
    with pytest.raises(CalibrationError, match=r"got enc\.third$"):
        quantise_dynamic(model, ENCODER, float_modules={"enc.third"})


@pytest.mark.parametrize("encoder", [[], ["enc.first/Relu"]])
def test_nothing_quantised_is_an_error(model: onnx.ModelProto, encoder: list[str]) -> None:
    with pytest.raises(CalibrationError, match="take static int8"):
        quantise_dynamic(model, encoder)
