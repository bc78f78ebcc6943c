"""Float constants of an OpenVINO graph in half precision, widened by a Convert that the engine folds."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import openvino
from openvino import opset13

from export.half import SMALLEST


def halve(model: openvino.Model, operations: Collection[str]) -> openvino.Model:
    """Return a copy whose large float32 constants that only the named operations read are float16.

    Args:
        model: the graph; it is left alone.
        operations: names of the operations whose constants may lose digits; the others keep theirs.
    """
    copied = model.clone()
    for constant in copied.get_ordered_ops():
        if constant.get_type_name() != "Constant" or constant.get_element_type() != openvino.Type.f32:
            continue
        values, readers = constant.data, list(constant.output(0).get_target_inputs())
        if values.size < SMALLEST or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        if not all(reader.get_node().get_friendly_name() in operations for reader in readers):
            continue
        name = constant.get_friendly_name()
        half = opset13.constant(values.astype(np.float16), name=name)
        wide = opset13.convert(half, "f32", name=f"{name}/Convert")
        for reader in readers:
            reader.replace_source_output(wide.output(0))
    copied.validate_nodes_and_infer_types()
    return copied
