"""Rewrites: small exact changes of the float network that let more of it run in fast kernels.

Each keeps what the network computes (to rounding) and is tested alone; `rewrite` applies a target's own list
to a copy. Every one works on a network in eval mode.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

from export.rewrites.attention import split_attention
from export.rewrites.batch_norm import fold_batch_norms, shift_residual_streams
from export.rewrites.class_token import keep_class_token
from export.rewrites.layer_scale import fold_layer_scales
from export.rewrites.linear import flatten_linears
from export.rewrites.patch_embedding import merge_patch_convolutions
from export.rewrites.prelu import split_prelus
from training.models import ExpressionNetwork

Rewrite = Callable[[ExpressionNetwork], None]

# Each in an order in which every one finds what it needs. OpenVINO takes a PReLU into its convolutions.
OPENVINO: tuple[Rewrite, ...] = (
    fold_batch_norms,
    shift_residual_streams,
    split_attention,
    fold_layer_scales,
    keep_class_token,
    merge_patch_convolutions,
)
TFLITE: tuple[Rewrite, ...] = (*OPENVINO, split_prelus)
ONNX: tuple[Rewrite, ...] = (*TFLITE, flatten_linears)


def rewrite(network: ExpressionNetwork, rewrites: Sequence[Rewrite]) -> ExpressionNetwork:
    """Return a rewritten copy of a network in eval mode; the network itself is left alone."""
    copied = copy.deepcopy(network).eval()
    for change in rewrites:
        change(copied)
    return copied
