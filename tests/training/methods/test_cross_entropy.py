"""Cross-entropy, class weights by effective number and the centre loss against NumPy; where gradients go."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.methods.tiny_training import (
    NOW,
    batch_of,
    falls,
    refused,
    tiny_faces,
    tiny_network,
    train_tiny,
    training_set,
)
from training.methods.cross_entropy import (
    CrossEntropy,
    CrossEntropyOptions,
    centre_loss,
    cross_entropy,
    effective_weights,
    moved_centres,
    rules,
)
from training.methods.method import Batch


def generated(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small_batch() -> Batch:
    faces, labels = tiny_faces()
    return batch_of(faces, labels, torch.arange(9))


def test_effective_weights_are_the_inverse_effective_numbers_and_sum_to_the_classes() -> None:
    counts = [4772, 1290, 705, 1, 281]
    effective = [sum(0.9999**power for power in range(n)) for n in counts]
    wanted = np.array([1.0 / e for e in effective])
    wanted *= len(counts) / wanted.sum()
    found = effective_weights(torch.tensor(counts, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    assert effective_weights(torch.tensor(counts, dtype=torch.float32)).dtype == torch.float32


def test_an_absent_class_weighs_as_one_of_a_single_face() -> None:
    absent, single = effective_weights(torch.tensor([0.0, 9.0])), effective_weights(torch.tensor([1.0, 9.0]))
    torch.testing.assert_close(absent, single, rtol=0, atol=0)


@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_agrees_with_numpy(weighted: bool) -> None:
    logits, targets = generated(6, 4), generated(6, 4, seed=1).softmax(dim=-1)
    weights = torch.tensor([0.5, 2.0, 1.0, 0.25], dtype=torch.float64)
    total = 0.0
    for z, t in zip(logits.numpy(), targets.numpy(), strict=True):
        log_sum = math.log(sum(math.exp(value) for value in z))
        for c in range(4):
            total -= (weights[c].item() if weighted else 1.0) * t[c] * (z[c] - log_sum)
    found = cross_entropy(logits, targets, weights if weighted else None)
    assert found.item() == pytest.approx(total / 6, rel=1e-9)


def test_the_centre_loss_and_its_centres_agree_with_numpy() -> None:
    embeddings, centres = generated(7, 5), generated(4, 5, seed=1)
    labels = torch.tensor([0, 2, 2, 0, 1, 2, 0])  # none of class 3
    e, c = embeddings.numpy(), centres.numpy()
    loss = sum(0.5 * ((e[n] - c[label]) ** 2).sum() for n, label in enumerate(labels.tolist())) / 7
    assert centre_loss(embeddings, centres, labels).item() == pytest.approx(loss, rel=1e-9)
    wanted = c.copy()
    for j in range(4):
        own = [n for n, label in enumerate(labels.tolist()) if label == j]
        wanted[j] -= 0.3 * sum((c[j] - e[n] for n in own), np.zeros(5)) / (1 + len(own))
    np.testing.assert_allclose(moved_centres(centres, embeddings, labels, 0.3).numpy(), wanted, rtol=1e-9)


def test_the_loss_is_that_of_the_smoothed_targets_under_the_class_weights() -> None:
    network, batch = tiny_network().eval(), small_batch()
    votes = generated(9, 3, seed=3).softmax(dim=-1).float()
    batch = replace(batch, targets=votes)
    labels = torch.tensor([0] * 40 + [1] * 4 + [2] * 2)
    options = CrossEntropyOptions(class_weights="effective", smoothing=0.11)
    method = CrossEntropy(options, network, training_set(labels))
    p = network((batch.faces - 0.5) / 0.5).primary.detach().double().numpy()
    w = effective_weights(torch.tensor([40.0, 4.0, 2.0], dtype=torch.float64)).numpy()
    t = 0.89 * votes.double().numpy() + 0.11 / 3
    terms = method(network, batch, NOW)
    assert terms["total"].item() == pytest.approx(-(w * t * np.log(p)).sum() / 9, rel=1e-5)
    assert terms["total"].item() == terms["classification"].item()
    assert "centre" not in terms


def test_the_centre_loss_reaches_the_network_and_not_the_centres() -> None:
    network, batch = tiny_network(), small_batch()
    method = CrossEntropy(CrossEntropyOptions(centre=0.3), network, training_set(tiny_faces()[1]))
    method.centres.copy_(generated(*method.centres.shape).float())
    before = method.centres.clone()
    terms = method(network, batch, NOW)
    wanted = terms["classification"] + 0.3 * terms["centre"]
    torch.testing.assert_close(terms["total"], wanted, rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(terms["centre"], network.encoder.norm.weight)
    assert gradient.abs().max() > 0
    assert list(method.parameters()) == []
    assert not method.centres.requires_grad
    torch.testing.assert_close(method.centres, before, rtol=0, atol=0)


def test_the_centres_follow_the_embeddings_of_the_step_and_are_kept_with_the_run() -> None:
    network, batch = tiny_network(), small_batch()
    method = CrossEntropy(
        CrossEntropyOptions(centre=0.3, centre_rate=0.5), network, training_set(batch.labels)
    )
    other = tiny_network()  # moves its statistics as the method's network does
    embeddings = other((batch.faces - 0.5) / 0.5).embedding.detach().numpy()
    method(network, batch, NOW)
    method.after_step(network, batch)
    for label in range(3):
        own = embeddings[batch.labels.numpy() == label]
        wanted = 0.5 * own.sum(axis=0) / (1 + len(own))
        np.testing.assert_allclose(method.centres[label].numpy(), wanted, rtol=1e-4, atol=1e-5)
    assert set(method.state_dict()) == {"centres"}
    kept = method.centres.clone()
    method.after_step(network, batch)  # nothing was seen since
    torch.testing.assert_close(method.centres, kept, rtol=0, atol=0)


@pytest.mark.parametrize(
    "options",
    [
        CrossEntropyOptions(),
        CrossEntropyOptions(class_weights="effective", smoothing=0.1, centre=0.003),
    ],
    ids=["plain", "everything"],
)
def test_it_trains(options: CrossEntropyOptions) -> None:
    network = tiny_network()
    history = train_tiny(CrossEntropy(options, network, training_set(tiny_faces()[1])), network)
    assert falls(history["classification"])
    assert falls(history["total"])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("class_weights", "inverse"),
        ("smoothing", 1.0),
        ("smoothing", math.nan),
        ("centre", -0.1),
        ("centre", math.inf),
        ("centre", math.nan),
        ("centre_rate", 0.0),
        ("centre_rate", math.nan),
    ],
)
def test_options_no_run_can_use_are_named(option: str, value: object) -> None:
    assert refused(rules, CrossEntropyOptions(), option, value) == [option]
