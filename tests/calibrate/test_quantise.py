"""Static quantisation of an encoder: what is quantised, what stays float, and never silently nothing."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from calibrate.onnx import DEFAULT, count_float, count_quantised, entrance, prepare, quantise
from calibrate.onnx_ranges import BATCH, ESTIMATORS, activations, find_ranges
from calibrate.recipe import Recipe
from edge_fer.engines.onnxruntime import OnnxRuntimeEngine
from edge_fer.errors import CalibrationError

SIZE = 12
WHOLE = replace(DEFAULT, float_first=False)  # both convolutions, so that one behind the other is seen
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
    return quantise(model, ENCODER, crops, recipe=WHOLE)


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
    narrow, wide = (
        weights(quantised),
        weights(quantise(model, ENCODER, crops[:20], recipe=replace(WHOLE, weights="s8"))),
    )
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
    again = quantise(model, ENCODER, crops, recipe=WHOLE)
    assert again.SerializeToString(deterministic=True) == quantised.SerializeToString(deterministic=True)


def test_the_faces_decide_the_ranges(
    quantised: onnx.ModelProto, model: onnx.ModelProto, crops: NDArray[np.uint8]
) -> None:
    dark = quantise(model, ENCODER, crops // 4, recipe=WHOLE)
    assert dark.SerializeToString(deterministic=True) != quantised.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([], "got none among 0 named"),
        (["enc/Transpose", "somewhere/Conv"], "got none among 2 named"),
        (["enc/Relu", "enc/Add", "enc/GlobalAveragePool"], "got none among 3 named"),
        (["enc/Conv", "enc/Relu"], "left all of them float"),  # it reads the pixels
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
    assert seen == list(range(BATCH, 61, BATCH))
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET


def readers(model: onnx.ModelProto) -> set[str]:
    """Return the names of the nodes that read a dequantised tensor other than a constant."""
    constants = {item.name for item in model.graph.initializer}
    dequantise = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    values = {node.output[0] for node in dequantise if node.input[0] not in constants}
    return {node.name for node in model.graph.node if values & set(node.input)}


def test_the_convolution_that_reads_the_pixels_stays_float(
    model: onnx.ModelProto, crops: NDArray[np.uint8]
) -> None:
    before, first = entrance(model)
    assert (before, first) == ({"enc/Transpose", "enc/Cast"}, {"enc/Conv"})
    found = quantise(model, ENCODER, crops[:20])
    assert count_quantised(found) == {"Add": 1, "Conv": 1, "GlobalAveragePool": 1}
    assert "enc/Conv" not in readers(found) and "enc/Conv_2" in readers(found)


def test_modules_stay_float_when_asked(model: onnx.ModelProto, crops: NDArray[np.uint8]) -> None:
    renamed = onnx.ModelProto()
    renamed.CopyFrom(model)
    for node in renamed.graph.node:
        if node.name == "enc/Conv_2":
            node.name = "enc.block.1/Conv"
    names = [node.name for node in renamed.graph.node if node.name.startswith("enc")]
    kept = replace(WHOLE, float_modules=frozenset({"enc.block"}))
    assert count_quantised(quantise(renamed, names, crops[:20], recipe=kept))["Conv"] == 1
    (node,) = (n for n in quantise(renamed, names, crops[:20], recipe=kept).graph.node if "block" in n.name)
    assert node.input[1] == "w2"
    other = replace(WHOLE, float_modules=frozenset({"enc.bl"}))  # the beginning of a name is no module
    with pytest.raises(CalibrationError, match=r"got enc\.bl$"):
        quantise(renamed, names, crops[:20], recipe=other)


def test_what_was_prepared_serves_several_recipes(model: onnx.ModelProto, crops: NDArray[np.uint8]) -> None:
    prepared = prepare(model, crops)
    for recipe in (WHOLE, replace(WHOLE, weights="s8"), DEFAULT):
        expected = quantise(model, ENCODER, crops, recipe=recipe)
        got = quantise(model, ENCODER, crops[:0], recipe=recipe, known=lambda: prepared)
        assert got.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)
    with pytest.raises(CalibrationError, match="expected ranges percentile, got minmax"):
        quantise(model, ENCODER, crops, recipe=replace(WHOLE, ranges="minmax"), known=lambda: prepared)


def test_one_recipe_leaves_the_ranges_to_the_next_as_they_were(crops: NDArray[np.uint8]) -> None:
    model = make_model()
    for node in model.graph.node:
        if node.name == "enc/Relu_2":
            node.name = "enc.act/Relu"
    names = [name.replace("enc/Relu_2", "enc.act/Relu") for name in ENCODER]
    prepared = prepare(model, crops)
    # The tool gives the sum in front of a quantised ReLU that one's range: without it the sum needs its own.
    recipe = replace(WHOLE, float_modules=frozenset({"enc.act"}))
    quantise(model, names, crops, recipe=WHOLE, known=lambda: prepared)
    got = quantise(model, names, crops, recipe=recipe, known=lambda: prepared)
    expected = quantise(model, names, crops, recipe=recipe)
    assert got.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)


def test_a_recipe_that_does_not_fit_is_refused_before_the_faces_are_run(model: onnx.ModelProto) -> None:
    faces = np.zeros((0, SIZE, SIZE, 3), np.uint8)
    recipe = replace(WHOLE, float_modules=frozenset({"nowhere"}))
    with pytest.raises(CalibrationError, match="got nowhere"):
        quantise(model, ENCODER, faces, recipe=recipe, known=lambda: pytest.fail("the faces were run"))


def activation_scales(model: onnx.ModelProto) -> dict[str, tuple[float, int, int]]:
    """Return scale, zero point and its type for every tensor that a QuantizeLinear writes."""
    arrays = {item.name: item for item in model.graph.initializer}
    scales = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            scale, zero = (numpy_helper.to_array(arrays[name]) for name in node.input[1:3])
            scales[node.input[0]] = (float(scale), int(zero), arrays[node.input[2]].data_type)
    return scales


@pytest.mark.parametrize("ranges", ESTIMATORS)
def test_ranges_are_those_of_the_float_activations(
    model: onnx.ModelProto, crops: NDArray[np.uint8], ranges: str
) -> None:
    recipe = replace(WHOLE, ranges=ranges)
    scale, zero, kind = activation_scales(quantise(model, ENCODER, crops, recipe=recipe))["e"]
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.append(helper.make_tensor_value_info("e", TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    (values,) = session.run(["e"], {"image": crops})
    low, high = (0.0, float(values.max()))
    if ranges == "percentile":
        outside = int(values.size * 5e-6)
        high = float(np.sort(values, axis=None)[-1 - outside])
    assert kind == TensorProto.UINT8 and zero == 0
    if ranges == "entropy":  # never wider, and narrower by what it gives up
        assert 0.2 < scale * 255 / (high - low) <= 1.01
    else:
        assert scale * 255 == pytest.approx(high - low, rel=1e-5)


def test_signed_activations_have_a_zero_point_of_their_own(
    model: onnx.ModelProto, crops: NDArray[np.uint8]
) -> None:
    recipe = replace(WHOLE, weights="s8", activations="s8")
    scales = activation_scales(quantise(model, ENCODER, crops[:20], recipe=recipe))
    assert {kind for _, _, kind in scales.values()} == {TensorProto.INT8}
    assert -128 in {zero for _, zero, _ in scales.values()}


def test_a_symmetric_recipe_has_the_layout_of_tensorrt(
    model: onnx.ModelProto, crops: NDArray[np.uint8]
) -> None:
    recipe = Recipe(weights="s8", activations="s8", symmetric=True, float_first=False)
    found = quantise(model, ENCODER, crops[:20], recipe=recipe)
    scales = activation_scales(found)
    assert scales and {zero for _, zero, _ in scales.values()} == {0}
    # The sum finds its shortcut quantised, but nothing is quantised for it.
    assert readers(found) == {"enc/Conv", "enc/Conv_2", "enc/Add"}
    assert set(scales) == {"pixels", "b"}
    assert not [item for item in found.graph.initializer if item.data_type == TensorProto.INT32]  # biases
    assert "enc/Relu" in {node.name for node in found.graph.node}
    with pytest.raises(CalibrationError, match="expected s8 activations in a symmetric recipe"):
        quantise(model, ENCODER, crops[:20], recipe=replace(recipe, activations="u8"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ranges": "mse"}, "expected ranges minmax or percentile or entropy, got mse"),
        ({"bias_correction": "fast"}, "expected bias_correction none, got fast"),
        ({"smooth_quant": 0.5}, "expected no smooth_quant"),
    ],
)
def test_what_the_tool_does_not_offer_is_refused(
    model: onnx.ModelProto, crops: NDArray[np.uint8], change: dict[str, object], said: str
) -> None:
    with pytest.raises(CalibrationError, match=said):
        quantise(model, ENCODER, crops[:10], recipe=replace(DEFAULT, **change))  # type: ignore[arg-type]


def test_arithmetic_on_maps_is_quantised_and_on_vectors_it_is_not(crops: NDArray[np.uint8]) -> None:
    model = make_model()
    scale = numpy_helper.from_array(np.linspace(0.5, 1.5, 8, dtype=np.float32).reshape(8, 1, 1), "s")
    vector = numpy_helper.from_array(np.linspace(0.5, 1.5, 8, dtype=np.float32), "v")
    model.graph.initializer.extend([scale, vector])
    nodes = {node.name: node for node in model.graph.node}
    nodes["enc/GlobalAveragePool"].input[0] = "scaled"
    nodes["enc/Flatten"].output[0] = "flat"
    added = [
        helper.make_node("Mul", ["e", "s"], ["m"], name="enc/Mul"),
        helper.make_node("Sub", ["m", "b"], ["scaled"], name="enc/Sub"),
        helper.make_node("Mul", ["flat", "v"], ["embedding"], name="enc/Mul_2"),
    ]
    order = [*model.graph.node[:7], *added[:2], *model.graph.node[7:9], added[2], *model.graph.node[9:]]
    del model.graph.node[:]
    model.graph.node.extend(order)
    found = quantise(model, [*ENCODER, "enc/Mul", "enc/Sub", "enc/Mul_2"], crops[:20], recipe=WHOLE)
    counted = count_quantised(found)
    assert (counted["Mul"], counted["Sub"]) == (1, 1)
    assert "enc/Mul_2" not in readers(found)


def test_every_face_is_read_and_told(model: onnx.ModelProto, crops: NDArray[np.uint8]) -> None:
    prepared = prepare(model, crops).model
    names = activations(prepared, ("Conv",))
    assert {"a", "b", "c"} <= names and "w1" not in names
    for ranges in ESTIMATORS:
        seen: list[int] = []
        last = crops[:15].copy()
        last[:14] = 128
        found = find_ranges(prepared, ("Conv",), last, ranges, seen.append)
        assert seen == list(range(BATCH, 16, BATCH))
        gray = find_ranges(prepared, ("Conv",), last[:14], ranges, seen.append)
        assert np.ptp(found.data["c"].range_value) > np.ptp(gray.data["c"].range_value)
