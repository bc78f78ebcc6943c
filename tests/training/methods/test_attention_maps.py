"""Class attention maps against NumPy, where their gradient goes, and what methods say of unfit networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edge_fer.errors import TrainingError
from tests.training.methods.tiny_training import CLASSES, SIZE, tiny_faces, tiny_network, training_set
from training.methods.attention_maps import class_attention_maps, feature_maps, has_attention_maps, judge
from training.methods.dan import Dan, DanOptions
from training.methods.eac import Eac, EacOptions
from training.methods.rac_rsl import RacRsl, RacRslOptions
from training.methods.rul import Rul, RulOptions
from training.methods.scn import Scn, ScnOptions
from training.models import ExpressionNetwork, build, standardise


@pytest.fixture
def network() -> ExpressionNetwork:
    """A network whose closing norm has statistics, weights and biases of its own, in eval mode."""
    network = tiny_network()
    network.train()
    for seed in range(3):
        network(standardise(tiny_faces(seed)[0], network))
    torch.nn.init.normal_(network.encoder.norm.weight)
    torch.nn.init.normal_(network.encoder.norm.bias)
    return network.eval()


def test_maps_are_the_heads_weights_at_every_position(network: ExpressionNetwork) -> None:
    faces = tiny_faces()[0][:5]
    maps = feature_maps(network, faces)
    norm, f = network.encoder.norm, maps.detach().double().numpy()
    mean, var = norm.running_mean.double().numpy(), norm.running_var.double().numpy()
    scale = norm.weight.detach().double().numpy() / np.sqrt(var + norm.eps)
    f = (f - mean[:, None, None]) * scale[:, None, None] + norm.bias.detach().double().numpy()[:, None, None]
    w = network.head.linear.weight.detach().double().numpy()
    wanted = np.zeros((5, CLASSES, *f.shape[2:]))
    for label in range(CLASSES):
        for channel in range(f.shape[1]):
            wanted[:, label] += w[label, channel] * f[:, channel]
    found = class_attention_maps(network, maps)
    assert found.shape == (5, CLASSES, SIZE // 8, SIZE // 8)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_their_mean_and_the_bias_are_the_logits(network: ExpressionNetwork) -> None:
    faces = tiny_faces()[0][:5]
    maps = feature_maps(network, faces)
    said = judge(network, maps)
    mean = class_attention_maps(network, maps).mean(dim=(2, 3)) + network.head.linear.bias
    torch.testing.assert_close(mean, said.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(said.logits, network(standardise(faces, network)).logits, rtol=0, atol=0)


def test_they_are_float32_under_mixed_precision(network: ExpressionNetwork) -> None:
    faces = tiny_faces()[0][:5]
    exact = class_attention_maps(network, feature_maps(network, faces))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = feature_maps(network, faces)
        found, said = class_attention_maps(network, maps), judge(network, maps)
    assert maps.dtype == torch.bfloat16
    assert found.dtype == said.logits.dtype == torch.float32
    assert (found - exact).abs().max() < 0.1 * exact.abs().max()


def test_no_gradient_reaches_the_heads_weight(network: ExpressionNetwork) -> None:
    network.train()
    maps = feature_maps(network, tiny_faces()[0][:5])
    judge(network, maps)
    class_attention_maps(network, maps).square().mean().backward()
    assert network.head.linear.weight.grad is None
    assert network.head.linear.bias.grad is None
    assert float(network.encoder.stem[0].weight.grad.abs().max()) > 0


def test_only_linear_heads_on_maps_have_them() -> None:
    assert has_attention_maps(tiny_network())
    assert not has_attention_maps(build("grefel-lite-s", classes=CLASSES, input_size=SIZE, head="scaled"))
    assert not has_attention_maps(build("posterpp", classes=CLASSES, input_size=112))


@pytest.mark.parametrize(
    ("method", "options", "head"),
    [
        (Eac, EacOptions(), "linear"),
        (RacRsl, RacRslOptions(), "linear"),
        (Scn, ScnOptions(), "scaled"),
        (Rul, RulOptions(), "rul"),
        (Dan, DanOptions(), "dan"),
    ],
)
def test_a_head_that_a_method_cannot_train_is_named(method: type, options: object, head: str) -> None:
    network = build("grefel-lite-s", classes=CLASSES, input_size=SIZE, head="balanced")
    with pytest.raises(TrainingError) as error:
        method(options, network, training_set(tiny_faces()[1]))
    text = str(error.value)
    assert f'expected a network with head "{head}", got head "balanced"' in text
    assert f'set network.head = "{head}"' in text
    assert "\n" not in text


@pytest.mark.parametrize(("method", "options"), [(Eac, EacOptions()), (RacRsl, RacRslOptions())])
def test_an_encoder_without_a_map_is_named(method: type, options: object) -> None:
    network = build("posterpp", classes=CLASSES, input_size=112, head="linear")
    with pytest.raises(
        TrainingError, match=r'feature map, got "posterpp".*choose another network.model'
    ) as error:
        method(options, network, training_set(tiny_faces()[1]))
    assert "\n" not in str(error.value)
