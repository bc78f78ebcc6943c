"""Dynamic int8 for OpenVINO: 8-bit weights, inputs quantised at run time, each row by itself."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("openvino")
pytest.importorskip("nncf")

import openvino
from openvino import opset8 as ops

from calibrate.openvino import before, count_float, count_quantised
from calibrate.openvino_dynamic import quantise_dynamic
from edge_fer.errors import CalibrationError

WIDTH = 64


def make_model(*, products: bool = True) -> openvino.Model:
    """Build a convolution over 3 x 3 x 64 values, two products behind it, and a product as the head."""
    generator = np.random.default_rng(0)

    def weight(*shape: int) -> NDArray[np.float32]:
        return (generator.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    image = ops.parameter([-1, WIDTH, 3, 3], np.float32, name="image")
    ones = [1, 1]
    x: openvino.Node = ops.convolution(image, weight(WIDTH, WIDTH, 3, 3), ones, [0, 0], [0, 0], ones)
    x.set_friendly_name("enc.stem/Conv")
    x = ops.reshape(x, np.array([-1, WIDTH], np.int64), special_zero=False, name="enc/Reshape")
    for number in range(2 if products else 0):
        x = ops.matmul(x, weight(WIDTH, WIDTH), False, True, name=f"enc.blocks.{number}/MatMul")
    embedding = ops.relu(x, name="enc/Relu")
    logits = ops.matmul(embedding, weight(8, WIDTH), False, True, name="head/MatMul")
    image.output(0).set_names({"image"})
    embedding.output(0).set_names({"embedding"})
    logits.output(0).set_names({"probabilities"})
    return openvino.Model([logits, embedding], [image], "products")


def run(model: openvino.Model, x: NDArray[np.float32]) -> NDArray[np.float32]:
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled([x])["probabilities"])


def small_constants(model: openvino.Model) -> int:
    return sum(
        op.get_element_type().get_type_name() == "i8"
        for op in model.get_ops()
        if op.get_type_name() == "Constant" and op.get_output_size() and op.data.size > WIDTH
    )


def test_the_encoder_has_8_bit_weights_and_the_head_has_not() -> None:
    model = make_model()
    found = quantise_dynamic(model, before(model, "embedding"))
    assert count_quantised(found) == {"MatMul": 2}
    assert (count_float(found)["MatMul"], count_float(found)["Convolution"]) == (1, 1)
    assert small_constants(found) == 3 and small_constants(model) == 0


def test_a_row_does_not_depend_on_its_batch() -> None:
    model = make_model()
    found = quantise_dynamic(model, before(model, "embedding"))
    scale = np.array([1e-3, 1, 1e3, 30], np.float32)[:, None, None, None]
    rows = (np.random.default_rng(1).normal(size=(4, WIDTH, 3, 3)) * scale).astype(np.float32)
    together, expected = run(found, rows), run(model, rows)
    for index in range(4):
        spread = np.abs(expected[index]).max()
        alone = run(found, rows[index : index + 1])[0]
        np.testing.assert_allclose(together[index], alone, rtol=0, atol=1e-5 * spread)
        assert 0 < np.abs(together[index] - expected[index]).max() < 0.05 * spread


def test_modules_stay_float_when_asked() -> None:
    model = make_model()
    found = quantise_dynamic(model, before(model, "embedding"), float_modules={"enc.blocks.0"})
    assert count_quantised(found) == {"MatMul": 1} and small_constants(found) == 2
    with pytest.raises(CalibrationError, match=r"got enc\.blocks\.2$"):
        quantise_dynamic(model, before(model, "embedding"), float_modules={"enc.blocks.2"})


def test_an_encoder_without_products_is_an_error() -> None:
    model = make_model(products=False)
    with pytest.raises(CalibrationError, match="take static int8"):
        quantise_dynamic(model, before(model, "embedding"))
