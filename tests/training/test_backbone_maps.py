"""The maps of the convolutional backbones and Swin at full depth, against functions of their weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from tests.training import backbone_reference as reference
from training.models import MapEncoder, build

Reference = Callable[..., torch.Tensor]
CASES: dict[str, Reference] = {
    "resnet18": partial(reference.resnet, units=(2, 2, 2, 2)),
    "resnet50_ibn": partial(reference.resnet, units=(3, 4, 6, 3)),
    "mobilenet_v1": reference.mobilenet_v1,
    "mobilenet_v2": reference.mobilenet_v2,
    "shufflenet_v1": reference.shufflenet,
}


def encoder(name: str, size: int) -> MapEncoder:
    """A seeded encoder in double precision whose norms do something of their own to every channel."""
    torch.manual_seed(11)
    found = build(name, input_size=size).encoder
    assert isinstance(found, MapEncoder)
    for module in found.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        found(torch.randn(8, 3, size, size))
        for module in found.modules():
            if isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d | nn.LayerNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.3)
    return found.double().eval()


def check(got: torch.Tensor, expected: torch.Tensor) -> None:
    scale = float(expected.abs().max())
    assert got.shape == expected.shape and scale > 0.1
    assert float(expected.std(dim=0).max()) > 0.01 * scale  # faces differ, or anything would agree
    assert float((got - expected).abs().max()) <= 1e-10 * scale


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [64, 96])
def test_the_map_is_the_reference_s(name: str, size: int) -> None:
    """64 pixels, where a halving is left out, and 96, where none is."""
    network = encoder(name, size)
    faces = torch.randn(2, 3, size, size, dtype=torch.float64)
    with torch.inference_mode():
        check(network.forward_map(faces), CASES[name](network.state_dict(), faces, small=size == 64))


def test_the_map_of_swin_is_the_reference_s() -> None:
    network = encoder("swin_t", 64)
    attentions = {name: module for name, module in network.named_modules() if name.endswith("attention")}
    faces = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        check(network.forward_map(faces), reference.swin(network.state_dict(), faces, attentions, 2))
