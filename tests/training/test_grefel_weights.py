"""GReFEL's encoder: what its weights begin as, and the query projection that Eq. 1 prints."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from edge_fer.errors import RecipeError
from training.building import build_network
from training.models import build
from training.models.cross_attention import HEAD_DIM, CrossFusionLevel, WindowCrossAttention
from training.models.vit import DIM, MultiScaleViT
from training.recipe import load_recipe

RECIPE = """
name = "printed"
[network]
model = "{model}"
project_query = true
[optimiser]
epochs = 1
[method]
name = "grefel"
"""


@pytest.fixture(scope="module")
def vit() -> MultiScaleViT:
    torch.manual_seed(0)
    return MultiScaleViT()


def test_layer_scale_begins_at_a_hundred_thousandth() -> None:
    level = CrossFusionLevel(64, 2, drop_path=0.0)
    for scale in (level.scale1, level.scale2):
        assert torch.equal(scale, torch.full((64,), 1e-5))


def test_deeper_levels_are_dropped_more_often() -> None:
    with torch.device("meta"):
        encoder = build("grefel").encoder
    rates = [encoder.get_submodule(f"level{level}.drop_path").rate for level in (1, 2, 3)]
    assert rates == [0.0, 0.125, 0.25]


def test_linear_layers_begin_small_and_convolutions_by_fan_out(vit: MultiScaleViT) -> None:
    linear = [module for module in vit.modules() if isinstance(module, nn.Linear)]
    convolutions = [module for module in vit.modules() if isinstance(module, nn.Conv2d)]
    assert len(linear) == 2 * 4 + 2 and len(convolutions) == 4
    for layer in linear:
        assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.02)
    for convolution in convolutions:
        outputs = DIM * math.prod(convolution.kernel_size)
        assert float(convolution.weight.detach().std()) == pytest.approx(math.sqrt(2 / outputs), rel=0.02)
    for module in (*linear, *convolutions):
        assert module.bias is not None and not module.bias.any()


def test_class_token_and_positions_begin_with_a_deviation_of_0_02(vit: MultiScaleViT) -> None:
    assert float(vit.tokens.cls.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert float(vit.tokens.position.detach().std()) == pytest.approx(0.02, rel=0.02)


def test_a_projected_query_asks_in_place_of_the_tap() -> None:
    """Query by query from the weights: softmax of scaled inner products plus position bias, then values."""
    torch.manual_seed(1)
    attention = WindowCrossAttention(64, 2, project_query=True).double()
    windows, query = (torch.randn(1, 4, 64, dtype=torch.float64) for _ in range(2))
    weights = attention.state_dict()
    asked = query[0] @ weights["query.weight"].T + weights["query.bias"]
    key, value = (windows[0] @ weights["key_value.weight"].T + weights["key_value.bias"]).split(64, dim=1)
    heads = []
    for head in range(2):
        part = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
        rows = []
        for row in range(4):
            scores = [
                float(asked[row, part] @ key[column, part]) / math.sqrt(HEAD_DIM)
                + float(
                    weights["position_bias"][
                        (row // 2 - column // 2 + 1) * 3 + row % 2 - column % 2 + 1, head
                    ]
                )
                for column in range(4)
            ]
            rows.append(torch.tensor(scores, dtype=torch.float64).softmax(0) @ value[:, part])
        heads.append(torch.stack(rows))
    expected = torch.cat(heads, dim=1) @ weights["project.weight"].T + weights["project.bias"]
    with torch.inference_mode():
        torch.testing.assert_close(attention(windows, query)[0], expected, rtol=1e-10, atol=1e-12)


def test_a_recipe_adds_the_query_projection(tmp_path: Path) -> None:
    path = tmp_path / "printed.toml"
    path.write_text(RECIPE.format(model="grefel"))
    with torch.device("meta"):
        network = build_network(load_recipe(path))
    assert network.spec.project_query
    dims = [
        module.query.weight.shape[0]
        for module in network.modules()
        if isinstance(module, WindowCrossAttention)
    ]
    assert dims == [64, 128, 256]


def test_networks_without_cross_attention_have_no_query_to_project(tmp_path: Path) -> None:
    path = tmp_path / "printed.toml"
    path.write_text(RECIPE.format(model="resnet18"))
    with pytest.raises(
        RecipeError, match=r"expected network\.project_query with grefel or posterpp alone, got True"
    ):
        load_recipe(path)
