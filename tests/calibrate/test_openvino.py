"""Static quantisation of an OpenVINO encoder: what is quantised, what stays float, never silently nothing."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("openvino")
pytest.importorskip("nncf")

import openvino
from openvino import opset8 as ops
from openvino.opset13 import scaled_dot_product_attention as fused_attention

from calibrate.openvino import (
    DEFAULT,
    before,
    count_float,
    count_quantised,
    entrance,
    in_modules,
    quantise,
)
from calibrate.recipe import Recipe
from edge_fer.errors import CalibrationError

SIZE = 12
WHOLE = replace(DEFAULT, float_first=False)  # both convolutions
PIXELS = ["enc/transpose", "enc/convert", "enc/subtract", "enc/scale"]
ENCODER = [*PIXELS, "enc/conv1", "enc/relu1", "enc/conv2", "enc/add", "enc/relu2", "embedding"]
ATTENTION = {"plain": {"enc/scores", "enc/softmax", "enc/mix"}, "fused": {"enc/attention"}}


def make_model(attention: str = "") -> openvino.Model:
    """Build a residual encoder, with self-attention (plain or fused) or without, and a head of two layers."""
    generator = np.random.default_rng(0)

    def weight(*shape: int) -> NDArray[np.float32]:
        return (generator.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    def convolve(x: openvino.Node, channels: int, name: str) -> openvino.Node:
        return ops.convolution(x, weight(8, channels, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1], name=name)

    image = ops.parameter([-1, SIZE, SIZE, 3], np.uint8, name="image")
    planes = ops.transpose(image, np.array([0, 3, 1, 2], np.int64), name="enc/transpose")
    centred = ops.subtract(
        ops.convert(planes, "f32", name="enc/convert"), np.float32(127.5), name="enc/subtract"
    )
    pixels = ops.multiply(centred, np.float32(1 / 127.5), name="enc/scale")
    first = ops.relu(convolve(pixels, 3, "enc/conv1"), name="enc/relu1")
    x = ops.relu(ops.add(convolve(first, 8, "enc/conv2"), first, name="enc/add"), name="enc/relu2")
    if attention:
        tokens = ops.reshape(x, np.array([0, 8, -1], np.int64), special_zero=True, name="enc/tokens")
        if attention == "fused":
            mixed = fused_attention(tokens, tokens, tokens, name="enc/attention")
        else:
            scores = ops.matmul(tokens, tokens, False, True, name="enc/scores")
            shares = ops.softmax(scores, 2, name="enc/softmax")
            mixed = ops.matmul(shares, tokens, False, False, name="enc/mix")
        embedding = ops.reduce_mean(mixed, np.array([2], np.int64), keep_dims=False, name="embedding")
    else:
        embedding = ops.reduce_mean(x, np.array([2, 3], np.int64), keep_dims=False, name="embedding")
    hidden = ops.relu(ops.matmul(embedding, weight(8, 8), False, True, name="head/matmul1"), name="head/relu")
    logits = ops.matmul(hidden, weight(8, 8), False, True, name="head/matmul2")
    outputs = {"probabilities": ops.softmax(logits, 1, name="head/softmax"), "embedding": embedding}
    image.output(0).set_names({"image"})
    for name, node in outputs.items():
        node.output(0).set_names({name})
    return openvino.Model(list(outputs.values()), [image], "small")


@pytest.fixture(scope="module")
def model() -> openvino.Model:
    return make_model()


@pytest.fixture(scope="module")
def crops() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (60, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def quantised(model: openvino.Model, crops: NDArray[np.uint8]) -> openvino.Model:
    return quantise(model, before(model, "embedding"), crops, recipe=WHOLE)


def answers(model: openvino.Model, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled([crops])["probabilities"])


def readers(model: openvino.Model) -> set[str]:
    """Return the names of the operations that read a quantiser's output."""
    quantisers = [op for op in model.get_ops() if op.get_type_name() == "FakeQuantize"]
    targets = [target for op in quantisers for target in op.output(0).get_target_inputs()]
    return {target.get_node().get_friendly_name() for target in targets}


def widened(model: openvino.Model) -> set[str]:
    """Return what the 8-bit constants are named after: the operation whose weights they are."""
    constants = [op for op in model.get_ops() if op.get_type_name() == "Constant"]
    return {op.get_friendly_name() for op in constants if op.get_element_type().get_type_name() == "i8"}


def test_the_encoder_is_what_the_embedding_depends_on(model: openvino.Model) -> None:
    assert before(model, "embedding") == ENCODER
    pixels, first = entrance(model)
    assert {name for name in ENCODER if name in pixels} == set(PIXELS)
    assert "head/matmul1" not in pixels
    assert first == {"enc/conv1"}


def test_the_encoder_is_quantised_and_the_head_is_not(quantised: openvino.Model) -> None:
    reading = readers(quantised)
    assert {"enc/conv1", "enc/conv2", "enc/add"} <= reading
    assert not [name for name in reading if name.startswith("head")]
    assert not reading & set(PIXELS)
    assert len(widened(quantised)) == 2


def test_the_counts_are_those_of_the_drawing(quantised: openvino.Model, model: openvino.Model) -> None:
    counted = count_quantised(quantised)
    assert (counted["Convolution"], counted["Add"]) == (2, 1)
    assert "MatMul" not in counted
    left = count_float(quantised)
    assert (left["MatMul"], left["Softmax"], left["Transpose"], left["Convert"]) == (2, 1, 1, 1)
    assert "Convolution" not in left
    assert count_quantised(model) == {}
    assert count_float(model)["Convolution"] == 2 and count_float(model)["MatMul"] == 2


def test_a_layout_change_behind_a_quantiser_does_not_make_its_reader_float() -> None:
    image = ops.parameter([-1, 3, 4, 4], np.float32)
    level = np.float32(1)
    quantised = ops.fake_quantize(image, -level, level, -level, level, 256)
    moved = ops.transpose(quantised, np.array([0, 1, 3, 2], np.int64))
    scaled = ops.multiply(quantised, image)  # no 8-bit values, although its first input holds them
    kernel = ops.convert(ops.constant(np.ones((2, 3, 1, 1), np.int8)), "f32")
    ends = [ops.convolution(x, kernel, [1, 1], [0, 0], [0, 0], [1, 1]) for x in (moved, scaled)]
    counted = openvino.Model(ends, [image])
    assert count_quantised(counted) == {"Convolution": 1}
    assert count_float(counted) == {"Convolution": 1, "Multiply": 1, "Transpose": 1}


def test_weights_keep_seven_bits(quantised: openvino.Model) -> None:
    kernels = [op.data for op in quantised.get_ops() if op.get_friendly_name() in widened(quantised)]
    for kernel in kernels:
        peaks = np.abs(kernel.reshape(8, -1).astype(int)).max(axis=1)
        assert (peaks >= 63).all() and (peaks <= 64).all()  # per channel


def test_int8_is_close_to_float(
    quantised: openvino.Model, model: openvino.Model, crops: NDArray[np.uint8]
) -> None:
    expected, got = answers(model, crops), answers(quantised, crops)
    assert 0 < np.abs(got - expected).max() < 0.1
    assert np.abs(got - expected).mean() < 0.01


@pytest.mark.parametrize("attention", ["plain", "fused"])
def test_attention_is_quantised_as_a_transformer_is(
    monkeypatch: pytest.MonkeyPatch, crops: NDArray[np.uint8], attention: str
) -> None:
    import nncf

    real, kinds = nncf.quantize, []

    def spy(*arguments: object, **others: object) -> object:
        kinds.append(others["model_type"])
        return real(*arguments, **others)

    monkeypatch.setattr(nncf, "quantize", spy)
    attentive = make_model(attention)
    found = quantise(attentive, before(attentive, "embedding"), crops[:10], recipe=WHOLE)
    assert kinds == [nncf.ModelType.TRANSFORMER]
    assert ATTENTION[attention] <= set(before(attentive, "embedding"))
    assert count_quantised(found)["Convolution"] == 2
    assert not [name for name in readers(found) if name.startswith("head")]
    plain = make_model()
    quantise(plain, before(plain, "embedding"), crops[:10])
    assert kinds[1] is None  # the head's softmax does not count


@pytest.mark.parametrize("encoder", [[], PIXELS, ["enc/relu1", "enc/add", "somewhere/conv"]])
def test_nothing_quantised_is_an_error(
    model: openvino.Model, crops: NDArray[np.uint8], encoder: list[str]
) -> None:
    with pytest.raises(CalibrationError, match="expected operations to quantise"):
        quantise(model, encoder, crops[:10])


def test_the_quantiser_is_quiet_and_tells_its_progress(
    model: openvino.Model, crops: NDArray[np.uint8], capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []
    quantise(model, before(model, "embedding"), crops[:20], progress=seen.append)
    assert seen == list(range(1, 21))
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET
    assert count_quantised(model) == {}  # the float graph is left alone


def test_the_faces_decide_the_ranges(
    quantised: openvino.Model, model: openvino.Model, crops: NDArray[np.uint8]
) -> None:
    again = quantise(model, before(model, "embedding"), crops, recipe=WHOLE)
    dark = quantise(model, before(model, "embedding"), crops // 4, recipe=WHOLE)
    np.testing.assert_array_equal(answers(again, crops), answers(quantised, crops))
    assert np.abs(answers(dark, crops) - answers(quantised, crops)).max() > 0


def test_the_tools_report_to_nobody(tmp_path: Path) -> None:
    """Their telemetry gives the user a number, kept in the home folder; none means it never started."""
    code = (
        "import sys, calibrate.openvino, nncf, openvino; "
        "assert sys.modules['openvino_telemetry'] is None and openvino.convert_model"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "TF_BUILD")}
    environment["HOME"] = str(tmp_path)
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, cwd=root)
    assert not (tmp_path / "intel").exists()


def test_the_convolution_that_reads_the_pixels_stays_float(
    model: openvino.Model, crops: NDArray[np.uint8]
) -> None:
    found = quantise(model, before(model, "embedding"), crops[:10])
    assert count_quantised(found)["Convolution"] == count_float(found)["Convolution"] == 1
    assert "enc/conv1" not in readers(found) and "enc/conv2" in readers(found)


def make_modules() -> openvino.Model:
    """Build three convolutions in modules, with a nameless scale in front of the last two, and an end."""
    generator = np.random.default_rng(2)
    image = ops.parameter([-1, SIZE, SIZE, 3], np.uint8, name="image")
    planes = ops.transpose(
        ops.convert(image, "f32"), np.array([0, 3, 1, 2], np.int64), name="graph/Transpose"
    )
    x: openvino.Node = ops.multiply(planes, np.float32(1 / 255), name="graph/Mul")
    for number in range(3):
        scale = ops.multiply(x, generator.uniform(0.5, 1.5, (1, 3, 1, 1)).astype(np.float32))
        scale.set_friendly_name(f"Multiply_{number + 10}")
        weight = (generator.normal(size=(3, 3, 3, 3)) / 5).astype(np.float32)
        name = f"enc.blocks.{number}/Conv"
        x = ops.relu(ops.convolution(scale, weight, [1, 1], [1, 1], [1, 1], [1, 1], name=name))
        x.set_friendly_name(f"enc.blocks.{number}/Relu")
    embedding = ops.reduce_mean(x, np.array([2, 3], np.int64), keep_dims=False, name="enc/ReduceMean")
    image.output(0).set_names({"image"})
    embedding.output(0).set_names({"embedding"})
    return openvino.Model([embedding], [image], "modules")


def test_nameless_operations_count_with_what_reads_them() -> None:
    model = make_modules()
    encoder = before(model, "embedding")
    inside = in_modules(model, encoder, ["enc.blocks.1"])
    assert inside == {"Multiply_11", "enc.blocks.1/Conv", "enc.blocks.1/Relu"}
    assert in_modules(model, encoder, []) == set()
    with pytest.raises(CalibrationError, match=r"got enc\.blocks\.3$"):
        in_modules(model, encoder, ["enc.blocks.3"])


def test_modules_stay_float_when_asked(crops: NDArray[np.uint8]) -> None:
    model = make_modules()
    recipe = replace(DEFAULT, float_modules=frozenset({"enc.blocks.1"}))
    found = quantise(model, before(model, "embedding"), crops[:10], recipe=recipe)
    assert count_quantised(found)["Convolution"] == 1  # the first one reads the pixels
    assert "enc.blocks.2/Conv" in readers(found)
    assert not {"Multiply_11", "enc.blocks.1/Conv"} & readers(found)


def widths(model: openvino.Model) -> list[float]:
    """Return the width of every activation quantiser's range, in the graph's order."""
    quantisers = [op for op in model.get_ordered_ops() if op.get_type_name() == "FakeQuantize"]
    ends = [[op.input_value(port).get_node().data.item() for port in (1, 2)] for op in quantisers]
    return [high - low for low, high in ends]


def test_estimators_keep_more_or_less_of_the_range(model: openvino.Model, crops: NDArray[np.uint8]) -> None:
    some = crops[:20].copy()
    some[:, : SIZE // 2] = 128  # faces of which one has twice the contrast
    some[1:] = some[1:] // 2 + 64
    found = {
        ranges: sum(
            widths(quantise(model, before(model, "embedding"), some, recipe=replace(WHOLE, ranges=ranges)))
        )
        for ranges in ("minmax", "mean", "percentile", "mse")
    }
    assert found["mean"] < found["mse"] <= found["minmax"] * 1.001
    assert found["mean"] < found["percentile"] <= found["minmax"] * 1.001


@pytest.mark.parametrize("correction", ["none", "fast", "slow"])
def test_the_recipe_reaches_the_tool(
    monkeypatch: pytest.MonkeyPatch, model: openvino.Model, crops: NDArray[np.uint8], correction: str
) -> None:
    import nncf

    given: dict[str, object] = {}

    def spy(*_: object, **others: object) -> object:
        given.update(others)
        raise KeyboardInterrupt

    monkeypatch.setattr(nncf, "quantize", spy)
    recipe = Recipe(symmetric=True, smooth_quant=0.3, bias_correction=correction)
    with pytest.raises(KeyboardInterrupt):
        quantise(model, before(model, "embedding"), crops[:10], recipe=recipe)
    advanced = given["advanced_parameters"]
    assert given["preset"] == nncf.QuantizationPreset.PERFORMANCE
    assert advanced.overflow_fix == nncf.OverflowFix.DISABLE
    assert advanced.smooth_quant_alphas.matmul == 0.3
    assert advanced.disable_bias_correction == (correction == "none")
    assert given["fast_bias_correction"] == (correction != "slow")
    with pytest.raises(CalibrationError, match="NNCF: expected activations u8, got s8"):
        quantise(model, before(model, "embedding"), crops, recipe=Recipe(activations="s8"))
