"""DAN against NumPy, where its gradients go, and a short training."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.training.methods.tiny_training import (
    NOW,
    falls,
    refused,
    tiny_faces,
    tiny_network,
    train_tiny,
    training_set,
    voted_batch,
)
from training.methods.dan import Dan, DanOptions, affinity_loss, partition_loss, rules
from training.models import ExpressionNetwork, standardise


def dan(network: ExpressionNetwork, **options: float) -> Dan:
    return Dan(DanOptions(**options), network, training_set(tiny_faces()[1]))


def affinity_by_hand(features: np.ndarray, centres: np.ndarray, labels: list[int]) -> float:
    distances = [
        sum((f - c) ** 2 for f, c in zip(features[n], centres[y], strict=True)) for n, y in enumerate(labels)
    ]
    return sum(distances) / len(labels) / sum(np.var(centres[:, d], ddof=1) for d in range(centres.shape[1]))


def partition_by_hand(attended: np.ndarray) -> float:
    variances = [
        np.var(attended[n, :, d], ddof=1) for n in range(len(attended)) for d in range(attended.shape[2])
    ]
    return math.log(1 + attended.shape[1] / np.mean(variances))


def test_affinity_agrees_with_numpy() -> None:
    generator = torch.Generator().manual_seed(0)
    features, centres = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (6, 4))
    labels = torch.tensor([0, 3, 1, 1, 0, 3])
    wanted = affinity_by_hand(features.numpy(), centres.numpy(), labels.tolist())
    assert affinity_loss(features, centres, labels).item() == pytest.approx(wanted, rel=1e-6)
    assert affinity_loss(centres[labels], centres, labels).item() == 0.0


def test_partition_agrees_with_numpy_and_is_lower_the_more_the_heads_differ() -> None:
    attended = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert partition_loss(attended).item() == pytest.approx(partition_by_hand(attended.numpy()), rel=1e-6)
    assert partition_loss(3.0 * attended) < partition_loss(attended)
    same = attended[:, :1].expand(-1, 4, -1).clone().requires_grad_()
    partition_loss(same).backward()
    assert torch.isfinite(partition_loss(same))
    assert same.grad is not None and torch.isfinite(same.grad).all()


def test_the_loss_is_the_weighted_sum_of_the_three() -> None:
    network, batch = tiny_network(head="dan").eval(), voted_batch()
    method = dan(network, affinity=0.5, partition=2.0)
    with torch.no_grad():
        maps = network.encoder.forward_map(standardise(batch.faces, network))
        said = network(standardise(batch.faces, network))
        vectors = np.stack([head(maps).double().numpy() for head in network.head.attentions], axis=1)
    z = said.logits.double().numpy()
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    attended = vectors - np.log(np.exp(vectors).sum(axis=1, keepdims=True))  # over the heads
    wanted = {
        "classification": -(batch.targets.double().numpy() * log_p).sum() / 9,
        "affinity": affinity_by_hand(
            maps.double().numpy().mean(axis=(2, 3)),
            method.centres.detach().double().numpy(),
            batch.labels.tolist(),
        ),
        "partition": partition_by_hand(attended),
    }
    terms = method(network, batch, NOW)
    for name, value in wanted.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-4), name
    total = wanted["classification"] + 0.5 * wanted["affinity"] + 2.0 * wanted["partition"]
    assert terms["total"].item() == pytest.approx(total, rel=1e-4)


def test_each_term_trains_what_it_is_of() -> None:
    for term, centres, head, linear in (
        ("classification", False, True, True),
        ("affinity", True, False, False),
        ("partition", False, True, False),
    ):
        network = tiny_network(head="dan")
        method = dan(network)
        method(network, voted_batch(), NOW)[term].backward()
        assert (method.centres.grad is not None) == centres
        assert (network.head.attentions[0].square[0].weight.grad is not None) == head
        assert (network.head.linear.weight.grad is not None) == linear
        assert float(network.encoder.stem[0].weight.grad.abs().max()) > 0


def test_it_trains_and_so_do_its_centres() -> None:
    network = tiny_network(head="dan")
    method = dan(network)
    before = method.centres.detach().clone()
    history = train_tiny(method, network)
    assert falls(history["classification"])
    assert falls(history["total"], 0.85)
    assert set(history) == {"total", "classification", "affinity", "partition"}
    assert not torch.equal(method.centres, before)
    assert set(method.state_dict()) == {"centres"}


@pytest.mark.parametrize("option", ["affinity", "partition"])
@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_options_no_run_can_use_are_named(option: str, value: float) -> None:
    assert refused(rules, DanOptions(), option, value) == [option]
