"""Faults to plant into an exported ONNX graph: what goes wrong between a checkpoint and a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

Plant = Callable[[onnx.ModelProto], None]
PRIMARY = "network.head.primary.8"  # its weight: (C, 64)
CORRECTION = "network.head.attentive_correction.value"  # (C * slots, D)
BLOCK = "network.encoder.stages.2.1.conv2.0.weight"


def swap_red_and_blue(model: onnx.ModelProto) -> None:
    """Read BGR where the checkpoint reads RGB."""
    _reorder_input(model, [2, 1, 0], axis=3)


def shift_mean(model: onnx.ModelProto) -> None:
    """Subtract a mean that is 1 % off."""
    _change(model, "mean", lambda mean: mean * 1.01)


def shift_std(model: onnx.ModelProto) -> None:
    """Divide by a standard deviation that is 1 % off."""
    _change(model, "scale", lambda scale: scale / 1.01)


def perturb_happiness(model: onnx.ModelProto) -> None:
    """Halve one class's weights in the head: the last layer of `primary`, and the attentive correction."""
    happiness, slots = 1, 5

    def halve(rows: slice) -> Callable[[np.ndarray], np.ndarray]:
        def change(weight: np.ndarray) -> np.ndarray:
            weight[rows] *= 0.5
            return weight

        return change

    for part in ("weight", "bias"):
        _change(model, f"{PRIMARY}.{part}", halve(slice(happiness, happiness + 1)))
        _change(model, f"{CORRECTION}.{part}", halve(slice(happiness * slots, (happiness + 1) * slots)))


def double_a_scale(model: onnx.ModelProto) -> None:
    """Double the scale that one block's int8 weights are read with."""
    _change(model, f"{BLOCK}_scale", lambda scale: scale * 2)


def leak_the_batch(model: onnx.ModelProto) -> None:
    """Let every face see the mean of its batch, as a BatchNorm left in training mode does."""
    zero = _constant(model, "fault_axis", np.array([0], np.int64))
    weight = _constant(model, "fault_weight", np.array(0.3, np.float32))
    name = "mul_5"  # the normalised pixels
    index = next(i for i, node in enumerate(model.graph.node) if name in node.output)
    model.graph.node[index].output[0] = "fault_pixels"
    for node in (
        helper.make_node("ReduceMean", ["fault_pixels", zero], ["fault_mean"], keepdims=1),
        helper.make_node("Mul", ["fault_mean", weight], ["fault_part"]),
        helper.make_node("Sub", ["fault_pixels", "fault_part"], [name]),
    ):
        index += 1
        model.graph.node.insert(index, node)


def permute_labels(model: onnx.ModelProto) -> None:
    """Give the classes out in another data set's order: anger and sadness change places."""
    order = _constant(model, "fault_order", np.array([0, 1, 2, 4, 3, 5, 6, 7], np.int64))
    for name in ("probabilities", "primary"):
        _wrap_output(
            model, name, lambda given, out: [helper.make_node("Gather", [given, order], [out], axis=1)]
        )


def heat(model: onnx.ModelProto) -> None:
    """Give out the distribution at a temperature of 1.5, and its reliability."""
    exponent = _constant(model, "fault_exponent", np.array(1 / 1.5, np.float32))
    axis = _constant(model, "fault_classes", np.array([1], np.int64))
    producer = next(node for node in model.graph.node if "probabilities" in node.output)
    producer.output[0] = "fault_cold"
    index = list(model.graph.node).index(producer)
    for node in (  # before the nodes of `reliability`, which read `probabilities`
        helper.make_node("Pow", ["fault_cold", exponent], ["fault_power"]),
        helper.make_node("ReduceSum", ["fault_power", axis], ["fault_sum"], keepdims=1),
        helper.make_node("Div", ["fault_power", "fault_sum"], ["probabilities"]),
    ):
        index += 1
        model.graph.node.insert(index, node)


def planted(graph: bytes, plant: Plant) -> bytes:
    """Return the graph with the fault in it."""
    model = onnx.load_from_string(graph)
    plant(model)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _change(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    tensor = next(one for one in model.graph.initializer if one.name == name)
    value = numpy_helper.to_array(tensor).copy()
    tensor.CopyFrom(numpy_helper.from_array(change(value).astype(value.dtype), name))


def _constant(model: onnx.ModelProto, name: str, value: np.ndarray) -> str:
    model.graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def _reorder_input(model: onnx.ModelProto, order: Sequence[int], axis: int) -> None:
    indices = _constant(model, "fault_channels", np.array(order, np.int64))
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            if name == "image":
                node.input[position] = "fault_image"
    model.graph.node.insert(0, helper.make_node("Gather", ["image", indices], ["fault_image"], axis=axis))


def _wrap_output(
    model: onnx.ModelProto, name: str, nodes: Callable[[str, str], Sequence[onnx.NodeProto]]
) -> None:
    """Put nodes between what computes a graph output and the output; what else reads it is left alone."""
    given = f"fault_{name}"
    for node in model.graph.node:
        for names in (node.input, node.output):
            for position, one in enumerate(names):
                if one == name:
                    names[position] = given
    model.graph.node.extend(nodes(given, name))
