"""Every rewrite keeps what the network computes, on ordinary and extreme faces, and does what it is for."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from export import rewrites
from export.onnx import export_onnx
from export.rewrites import Rewrite, rewrite
from export.rewrites.batch_norm import LARGEST_SHIFT, Shift, fold_batch_norms, shift_residual_streams
from export.rewrites.class_token import keep_class_token
from export.rewrites.layer_scale import fold_layer_scales
from export.rewrites.linear import flatten_linears
from export.rewrites.patch_embedding import merge_patch_convolutions
from export.rewrites.prelu import SplitPReLU, split_prelus
from training.models import ExpressionNetwork, build
from training.models.cross_attention import CrossFusionLevel
from training.models.iresnet import ImprovedResidualUnit

TOLERANCE = 1e-5
EVERY = {change.__name__: change for change in rewrites.ONNX}


def enliven(network: ExpressionNetwork) -> ExpressionNetwork:
    """Give an untrained network what training gives: shifted norms, slopes of both signs, LayerScales."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.5, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.3, generator=generator)
        elif isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, -0.2, 0.6, generator=generator)
        elif isinstance(module, CrossFusionLevel):
            nn.init.uniform_(module.scale1, 0.2, 1, generator=generator)
            nn.init.uniform_(module.scale2, 0.2, 1, generator=generator)
            nn.init.normal_(module.attention.position_bias, 0, 1, generator=generator)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias, 0, 0.2, generator=generator)
    return network.eval()


@pytest.fixture(scope="module")
def grefel() -> ExpressionNetwork:
    torch.manual_seed(0)
    return enliven(build("grefel"))


@pytest.fixture(scope="module")
def faces() -> torch.Tensor:
    """Normalised faces: noise, white, black, and pixels of nothing but the two."""
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(1, 3, 112, 112, generator=generator)
    mixed = (torch.rand(1, 3, 112, 112, generator=generator) > 0.5) * 4.7 - 2.1
    return torch.cat([noise, torch.full_like(noise, 2.6), torch.full_like(noise, -2.1), mixed])


@pytest.fixture(scope="module")
def expected(grefel: ExpressionNetwork, faces: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return grefel.forward_features(faces)


def before(change: Rewrite) -> list[Rewrite]:
    """Return the rewrites that come before one in the longest list."""
    order = list(rewrites.ONNX)
    return order[: order.index(change)]


@pytest.mark.parametrize("name", EVERY)
def test_each_keeps_the_embedding(
    name: str, grefel: ExpressionNetwork, faces: torch.Tensor, expected: torch.Tensor
) -> None:
    ready = rewrite(grefel, before(EVERY[name]))
    changed = rewrite(ready, [EVERY[name]])
    with torch.inference_mode():
        was, now = ready.forward_features(faces), changed.forward_features(faces)
    scale = expected.abs().max()
    assert (now - was).abs().max() / scale <= TOLERANCE
    assert (now - expected).abs().max() / scale <= TOLERANCE


@pytest.mark.parametrize("name", EVERY)
def test_each_changes_the_modules_of_grefel(name: str, grefel: ExpressionNetwork) -> None:
    ready = rewrite(grefel, before(EVERY[name]))
    changed = rewrite(ready, [EVERY[name]])
    kinds = [[type(module) for module in network.modules()] for network in (ready, changed)]
    assert kinds[0] != kinds[1]


@pytest.mark.parametrize("changes", [rewrites.OPENVINO, rewrites.TFLITE, rewrites.ONNX])
def test_the_network_itself_is_left_alone_and_the_lite_one_kept(changes: tuple[Rewrite, ...]) -> None:
    torch.manual_seed(3)
    lite = enliven(build("grefel-lite"))
    values = copy.deepcopy(lite.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        was, now = lite(images), rewrite(lite, changes)(images)
    assert (now.embedding - was.embedding).abs().max() / was.embedding.abs().max() <= TOLERANCE
    assert (now.probabilities - was.probabilities).abs().max() <= TOLERANCE
    assert all(torch.equal(value, values[name]) for name, value in lite.state_dict().items())


def test_no_batch_norm_is_left_in_the_encoder_and_three_shifts_do_for_them(grefel: ExpressionNetwork) -> None:
    changed = rewrite(grefel, [fold_batch_norms, shift_residual_streams])
    assert not any(isinstance(module, nn.BatchNorm2d) for module in changed.encoder.modules())
    assert sum(isinstance(module, Shift) for module in changed.modules()) == 3


@pytest.mark.parametrize("ratio", [LARGEST_SHIFT * 1.01, float("inf"), float("nan")])
def test_a_norm_that_forgets_its_input_stays(
    ratio: float, grefel: ExpressionNetwork, faces: torch.Tensor
) -> None:
    forgetful = copy.deepcopy(grefel)
    unit = forgetful.encoder.image_branch.stage3[4]
    assert isinstance(unit, ImprovedResidualUnit)
    with torch.no_grad():
        if np.isfinite(ratio):
            unit.norm_in.bias[7] = unit.norm_in.weight[7] * ratio
        else:  # a channel that training has switched off
            unit.norm_in.weight[7] = 0
            unit.norm_in.bias[7] = 0 if np.isnan(ratio) else 0.4
        was = forgetful.forward_features(faces[:2])
        changed = rewrite(forgetful, [fold_batch_norms, shift_residual_streams])
        now = changed.forward_features(faces[:2])
    assert sum(isinstance(module, nn.BatchNorm2d) for module in changed.encoder.modules()) == 1
    assert (now - was).abs().max() / was.abs().max() <= TOLERANCE


@pytest.mark.parametrize("slopes", [(0.0, 0.25, 1.0), (-0.5, 0.3, 0.9), (0.2, 1.5, -2.0)])
def test_a_split_prelu_is_a_prelu(slopes: tuple[float, ...]) -> None:
    prelu = nn.PReLU(3)
    prelu.weight.data = torch.tensor(slopes)
    x = torch.tensor([-1e30, -3.0, -1e-30, 0.0, 1e-30, 2.0, 1e30]).repeat(1, 3, 1)[..., None]
    with torch.inference_mode():
        torch.testing.assert_close(SplitPReLU(prelu)(x), prelu(x), rtol=1e-6, atol=0)


def test_every_prelu_is_split(grefel: ExpressionNetwork) -> None:
    changed = rewrite(grefel, [split_prelus])
    assert sum(isinstance(module, nn.PReLU) for module in grefel.modules()) == 55
    assert not any(isinstance(module, nn.PReLU) for module in changed.modules())


def test_the_class_token_saves_most_of_the_last_block(grefel: ExpressionNetwork) -> None:
    changed = rewrite(grefel, rewrites.OPENVINO)
    seen: list[int] = []
    changed.encoder.vit.blocks[1].mlp[0].register_forward_hook(
        lambda module, inputs, output: seen.append(output.shape[1])
    )
    with torch.inference_mode():
        changed.forward_features(torch.zeros(1, 3, 112, 112))
    assert seen == [1]


def test_one_patch_convolution_does_for_two(grefel: ExpressionNetwork) -> None:
    tokens = grefel.encoder.vit.tokens
    merged = rewrite(grefel, [merge_patch_convolutions]).encoder.vit.tokens
    maps = [torch.randn(1, c, s, s) for c, s in ((64, 28), (128, 14), (256, 7))]
    with torch.inference_mode():
        torch.testing.assert_close(merged(*maps), tokens(*maps), rtol=1e-5, atol=1e-5)
    saved = sum(p.numel() for p in tokens.parameters()) - sum(p.numel() for p in merged.parameters())
    assert saved == (64 * 9 + 768 * 9 - 64 * 49) * 768 + 2 * 768


def test_layer_scales_and_joint_projections_are_gone(grefel: ExpressionNetwork) -> None:
    changed = rewrite(grefel, rewrites.OPENVINO)
    names = dict(changed.named_parameters())
    assert not [
        name for name in names if name.endswith(("scale1", "scale2", "qkv.weight", "key_value.weight"))
    ]
    assert fold_layer_scales in rewrites.ONNX and keep_class_token in rewrites.ONNX


def test_linear_layers_see_two_axes(grefel: ExpressionNetwork) -> None:
    changed = rewrite(grefel, [flatten_linears])
    axes = set()
    for module in changed.encoder.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda m, inputs, output: axes.add(inputs[0].ndim))
    with torch.inference_mode():
        changed.forward_features(torch.zeros(1, 3, 112, 112))
    assert axes == {2}


@pytest.mark.slow
def test_no_tensor_of_the_graph_has_more_than_five_axes(grefel: ExpressionNetwork) -> None:
    model = export_onnx(rewrite(grefel, rewrites.ONNX))
    ranks = [len(value.type.tensor_type.shape.dim) for value in model.graph.value_info]
    assert len(ranks) > 300 and max(ranks) <= 5
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"PRelu", "Gather", "GatherND", "Split"}
