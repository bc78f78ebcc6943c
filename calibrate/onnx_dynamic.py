"""Dynamic int8 for ONNX: matrix products whose input is quantised at run time, without calibration faces.

Only MatMulNBits does so block by block within a row (accuracy level 4). DynamicQuantizeLinear, which the
tool's usual dynamic quantisation puts in front of MatMulInteger and ConvInteger, takes one range from the
whole batch: a face's answer would depend on its neighbours. Convolutions have no form without it and stay
float.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import onnx
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from calibrate.onnx import count_quantised, module_of
from calibrate.quiet import quiet_tool
from calibrate.recipe import check_modules, covers
from edge_fer.errors import CalibrationError

# Weights that share a scale, along the input channels. 128 is faster than 32 and as exact on these networks.
BLOCK = 128
# The activations of a block are quantised to 8 bits, too; lower levels compute in float.
INT8_LEVEL = 4


def quantise_dynamic(
    model: onnx.ModelProto, encoder: Iterable[str], *, float_modules: Collection[str] = ()
) -> onnx.ModelProto:
    """Turn the encoder's products with constant matrices into MatMulNBits of 8 bits.

    Args:
        model: the float graph, its nodes named MODULE/OPERATOR; it is left alone.
        encoder: names of the nodes in front of the reliability head.
        float_modules: module paths that stay float with everything beneath them.

    Raises:
        CalibrationError: there is no such product, or a module has no node.
    """
    wanted = set(encoder)
    check_modules(float_modules, {module_of(name) for name in wanted})
    kept = [
        node.name
        for node in model.graph.node
        if node.name not in wanted or covers(float_modules, module_of(node.name))
    ]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with quiet_tool():
        tool = MatMulNBitsQuantizer(
            copy,
            bits=8,
            block_size=BLOCK,
            is_symmetric=True,
            accuracy_level=INT8_LEVEL,
            nodes_to_exclude=kept,
            op_types_to_quantize=("MatMul",),
        )
        tool.process()
    quantised: onnx.ModelProto = tool.model.model
    if not count_quantised(quantised):
        raise CalibrationError(
            "expected matrix products with constant weights in the encoder, got none: "
            "dynamic int8 for ONNX does not cover convolutions, take static int8"
        )
    return quantised
