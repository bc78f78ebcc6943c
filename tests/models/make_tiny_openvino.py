"""Make tiny.xml and tiny.bin; `python tests/models/make_tiny_openvino.py` writes them beside itself.

The same network as tiny.onnx, built here operation by operation: nothing in it is trained or random.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import openvino
from openvino import opset8 as ops

SIZE = 16
CLASSES = 8


def build(size: int = SIZE, classes: int = CLASSES, kind: type = np.uint8) -> openvino.Model:
    """Return the graph: the mean colours of four quarters, one linear layer, two softmaxes."""
    features = 4 * 3
    rule = np.arange(features * classes, dtype=np.float32).reshape(features, classes)
    image = ops.parameter([-1, size, size, 3], kind, name="image")
    scaled = ops.multiply(ops.convert(image, "f32"), np.float32(1 / 255))
    planes = ops.transpose(scaled, np.array([0, 3, 1, 2], np.int64))
    half = size // 2
    quarters = ops.avg_pool(planes, [half, half], [0, 0], [0, 0], [half, half], exclude_pad=True)
    flat = ops.reshape(quarters, np.array([-1, features], np.int64), special_zero=False)
    weight = (4 * np.sin(1 + rule * rule)).astype(np.float32)
    logits = ops.matmul(flat, weight, transpose_a=False, transpose_b=False)
    probabilities = ops.softmax(logits, 1)
    primary = ops.softmax(ops.multiply(logits, np.float32(0.5)), 1)
    logarithm = ops.log(ops.maximum(probabilities, np.float32(1e-12)))
    entropy = ops.reduce_sum(ops.multiply(probabilities, logarithm), np.array([1], np.int64), keep_dims=False)
    reliability = ops.add(ops.divide(entropy, np.float32(np.log(classes))), np.float32(1))
    outputs = {"probabilities": probabilities, "primary": primary, "reliability": reliability}
    image.output(0).set_names({"image"})
    for name, node in outputs.items():
        node.output(0).set_names({name})
    return openvino.Model(list(outputs.values()), [image], "tiny")


def serialise(model: openvino.Model) -> tuple[bytes, bytes]:
    """Return the graph and its weights, named by place and without notes on the machine."""
    for place, node in enumerate(model.get_ordered_ops()):
        if node.get_type_name() != "Parameter":
            node.set_friendly_name(f"{node.get_type_name()}_{place}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        root = ElementTree.fromstring(path.read_bytes())
        for notes in root.findall("rt_info"):
            root.remove(notes)
        return ElementTree.tostring(root) + b"\n", path.with_suffix(".bin").read_bytes()


if __name__ == "__main__":
    folder = Path(__file__).parent
    graph, weights = serialise(build())
    (folder / "tiny.xml").write_bytes(graph)
    (folder / "tiny.bin").write_bytes(weights)
