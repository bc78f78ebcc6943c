"""EAC against NumPy, its gradients, its two ways to erase, and a short training."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from tests.training.methods.tiny_training import (
    NOW,
    falls,
    maps_of_passes,
    refused,
    tiny_faces,
    tiny_network,
    train_tiny,
    training_set,
    voted_batch,
)
from training.methods.attention_maps import class_attention_maps
from training.methods.eac import Eac, EacOptions, flip_consistency, rules
from training.models import ExpressionNetwork, standardise


def eac(network: ExpressionNetwork, **options: float) -> Eac:
    return Eac(EacOptions(**options), network, training_set(tiny_faces()[1]))


def test_consistency_agrees_with_numpy() -> None:
    generator = torch.Generator().manual_seed(0)
    maps, mirrored = (torch.randn(4, 3, 5, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    a, b = maps.numpy(), mirrored.numpy()
    total = 0.0
    for n in range(4):
        for label in range(3):
            for row in range(5):
                for column in range(6):
                    total += (a[n, label, row, column] - b[n, label, row, 5 - column]) ** 2
    wanted = total / (4 * 3 * 5 * 6)
    assert flip_consistency(maps, mirrored).item() == pytest.approx(wanted, rel=1e-6)


def test_constant_maps_and_exact_mirror_images_are_consistent() -> None:
    constant = torch.full((2, 3, 4, 4), 0.7)
    assert flip_consistency(constant, constant).item() == 0.0
    maps = torch.randn(2, 3, 4, 4)
    assert flip_consistency(maps, maps.flip(-1)).item() == 0.0
    assert flip_consistency(maps, maps).item() > 0.0
    assert flip_consistency(maps, maps.flip(-2)).item() > 0.0


def test_the_loss_classifies_the_faces_alone_and_compares_both_maps() -> None:
    network, batch = tiny_network().eval(), voted_batch()
    with torch.no_grad():
        said = network(standardise(batch.faces, network))
        maps, mirrored = (
            class_attention_maps(network, network.encoder.forward_map(standardise(f, network)))
            .double()
            .numpy()
            for f in (batch.faces, torch.from_numpy(batch.faces.numpy()[..., ::-1].copy()))
        )
    z = said.logits.double().numpy()
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    classification = -(batch.targets.double().numpy() * log_p).sum() / 9
    consistency = ((maps - mirrored[..., ::-1]) ** 2).mean()
    terms = eac(network)(network, batch, NOW)
    assert terms["classification"].item() == pytest.approx(classification, rel=1e-5)
    assert terms["consistency"].item() == pytest.approx(consistency, rel=1e-4)
    assert terms["total"].item() == pytest.approx(classification + 5.0 * consistency, rel=1e-5)


def test_consistency_trains_both_passes_but_not_the_head() -> None:
    network, batch = tiny_network(), voted_batch()
    passes = maps_of_passes(network)
    eac(network)(network, batch, NOW)["consistency"].backward()
    assert len(passes) == 2
    assert all(float(maps.grad.abs().max()) > 0 for maps in passes if maps.grad is not None)
    assert all(maps.grad is not None for maps in passes)
    assert network.head.linear.weight.grad is None


def test_without_erasing_of_its_own_the_mirror_image_is_of_the_same_pixels() -> None:
    faces = voted_batch().faces
    same, mirrored = eac(tiny_network()).views(faces)
    torch.testing.assert_close(same, faces, rtol=0, atol=0)
    torch.testing.assert_close(mirrored, faces.flip(-1), rtol=0, atol=0)


def test_faces_and_mirror_images_are_erased_independently_and_repeatably() -> None:
    faces = torch.full((64, 3, 32, 32), 0.25)
    method = eac(tiny_network(), erase=0.5, erase_area=0.25)
    torch.manual_seed(5)
    first, second = method.views(faces)
    torch.manual_seed(5)
    again = method.views(faces)
    torch.testing.assert_close((first, second), again, rtol=0, atol=0)
    shares = [(view != 0.25).any(dim=1).float().mean(dim=(1, 2)) for view in (first, second)]
    for share in shares:
        erased = share[share > 0]
        assert 0.3 < len(erased) / 64 < 0.7
        assert float(erased.min()) > 0.01
        assert float(erased.max()) < 0.3
    where = [(view != 0.25).any(dim=1) for view in (first, second.flip(-1))]
    both = (shares[0] > 0) & (shares[1] > 0)
    assert both.any()
    assert not any(torch.equal(a, b) for a, b in zip(where[0][both], where[1][both], strict=True))


def test_the_erased_views_are_what_is_compared() -> None:
    network, batch = tiny_network().eval(), voted_batch()
    method = eac(network, erase=1.0)
    torch.manual_seed(1)
    views = method.views(batch.faces)
    torch.manual_seed(1)
    terms = method(network, batch, NOW)
    maps = [
        class_attention_maps(network, network.encoder.forward_map(standardise(view, network)))
        for view in views
    ]
    assert terms["consistency"].item() == pytest.approx(flip_consistency(*maps).item(), rel=1e-5)


@pytest.mark.parametrize("erase", [0.0, 0.5])
def test_it_trains(erase: float) -> None:
    network = tiny_network()
    start = copy.deepcopy(network.state_dict())
    method = eac(network, erase=erase)
    history = train_tiny(method, network)
    assert falls(history["classification"])
    assert falls(history["total"])
    assert set(history) == {"total", "classification", "consistency"}
    assert not list(method.parameters())
    assert not method.state_dict()
    assert any(not torch.equal(value, start[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("consistency", -0.1),
        ("consistency", math.inf),
        ("consistency", math.nan),
        ("erase", 1.1),
        ("erase", math.nan),
        ("erase_area", 0.01),
        ("erase_area", math.nan),
    ],
)
def test_options_no_run_can_use_are_named(option: str, value: float) -> None:
    assert refused(rules, EacOptions(), option, value) == [option]
