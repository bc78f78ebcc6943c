"""A small network with YuNet's inputs and outputs and drawn weights, for tests without a download.

Its heads are those of YuNet (sigmoid, transpose, reshape to cells), its body is one convolution per grid.
Like YuNet's usual file it declares an input of 640x640 and the shapes that follow from it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

STRIDES = (8, 16, 32)
WIDTHS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}


@cache
def stand_in(onnx: Any, declared: int | str = 640, output: str = "kps_32") -> bytes:
    """Return the file.

    Args:
        onnx: the package.
        declared: height and width of the input; a text: free ones.
        output: what the last output is called.
    """
    helper = onnx.helper
    rng = np.random.default_rng(0)
    nodes, weights, outputs, inner = [], [], [], []
    for stride in STRIDES:
        for head, width in WIDTHS.items():
            name = f"{head}_{stride}" if (head, stride) != ("kps", 32) else output
            # Noise of 0..255 gives scores on both sides of 0.6, boxes of a cell or three that overlap.
            scale = {"cls": 0.03, "obj": 0.03, "bbox": 0.004, "kps": 0.01}[head] / stride
            drawn = rng.normal(0, scale, (width, 3, stride, stride))
            kernel = (drawn - drawn.mean(axis=(1, 2, 3), keepdims=True)).astype(np.float32)
            weights.append(onnx.numpy_helper.from_array(kernel, f"w_{name}"))
            weights.append(onnx.numpy_helper.from_array(np.array([1, -1, width]), f"s_{name}"))
            steps = [
                helper.make_node(  # kernel_shape: OpenCV 4.10 does not work it out
                    "Conv",
                    ["input", f"w_{name}"],
                    [f"c_{name}"],
                    kernel_shape=[stride, stride],
                    strides=[stride, stride],
                )
            ]
            if head in ("cls", "obj"):
                steps.append(helper.make_node("Sigmoid", [steps[-1].output[0]], [f"g_{name}"]))
            steps.append(
                helper.make_node("Transpose", [steps[-1].output[0]], [f"t_{name}"], perm=[0, 2, 3, 1])
            )
            steps.append(helper.make_node("Reshape", [f"t_{name}", f"s_{name}"], [name]))
            nodes += steps
            if isinstance(declared, int):
                cells = declared // stride
                inner.append(helper.make_tensor_value_info(f"c_{name}", 1, [1, width, cells, cells]))
                outputs.append(helper.make_tensor_value_info(name, 1, [1, cells * cells, width]))
            else:
                outputs.append(helper.make_tensor_value_info(name, 1, [1, "cells", width]))
    size = [declared, declared] if isinstance(declared, int) else ["height", "width"]
    picture = helper.make_tensor_value_info("input", 1, [1, 3, *size])
    graph = helper.make_graph(nodes, "yunet", [picture], outputs, weights, value_info=inner)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
