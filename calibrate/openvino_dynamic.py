"""Dynamic int8 for OpenVINO: weights of 8 bits, inputs of matrix products quantised at run time.

The CPU engine quantises in groups of values within a row (DYNAMIC_QUANTIZATION_GROUP_SIZE, 32 by default), so
that a face's answer does not depend on its neighbours. Convolutions only store their weights in 8 bits and
compute in float.
"""

from __future__ import annotations

from collections.abc import Collection

import nncf
import openvino

from calibrate.openvino import SILENT, count_quantised, in_modules
from calibrate.quiet import quiet_tool
from edge_fer.errors import CalibrationError


def quantise_dynamic(
    model: openvino.Model, encoder: Collection[str], *, float_modules: Collection[str] = ()
) -> openvino.Model:
    """Store the weights of the encoder's convolutions and matrix products in 8 bits, one scale per channel.

    Args:
        model: the float graph, its operations named MODULE/OPERATOR; it is left alone.
        encoder: names of the operations in front of the reliability head.
        float_modules: module paths that stay float with everything beneath them.

    Raises:
        CalibrationError: there is no product with a constant matrix, or a module has no operation.
    """
    wanted = set(encoder) - in_modules(model, encoder, float_modules)
    computing = [op for op in model.get_ordered_ops() if op.get_type_name() not in SILENT]
    ignored = [op.get_friendly_name() for op in computing if op.get_friendly_name() not in wanted]
    with quiet_tool():
        quantised = nncf.compress_weights(
            model.clone(),
            mode=nncf.CompressWeightsMode.INT8_SYM,
            ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
        )
    if not count_quantised(quantised):
        raise CalibrationError(
            "expected matrix products with constant weights in the encoder, got none: "
            "dynamic int8 for OpenVINO does not cover convolutions, take static int8"
        )
    return quantised
