"""LDLVA's formulas and a whole step of it against NumPy; which gradients flow and which stop."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from edge_fer.errors import TrainingError
from tests.training.methods.tiny_training import (
    CLASSES,
    NOW,
    SIZE,
    batch_of,
    falls,
    refused,
    tiny_faces,
    tiny_network,
    train_tiny,
    training_set,
)
from training.batches import BatchMaker
from training.data.faces import FaceTensors
from training.devices import build_fabric
from training.methods.ldlva import (
    Ldlva,
    LdlvaOptions,
    attracted,
    balanced_weights,
    calibration,
    classification_loss,
    discriminative_loss,
    neighbour_distribution,
    rules,
    separated,
    separation_loss,
    target_distribution,
)
from training.methods.method import Batch
from training.models import ExpressionNetwork
from training.options import NetworkOptions, OptimiserOptions, Recipe

B, K, N, D = 5, 3, 4, 6


def generated(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def separation_gradient(mu: np.ndarray, scale: float) -> np.ndarray:
    gradient = np.zeros_like(mu)
    for i in range(len(mu)):
        for j in range(len(mu)):
            if i != j:
                difference = mu[i] - mu[j]
                gradient[i] -= 2.0 * difference / scale * np.exp(-(difference**2).sum() / scale)
    return gradient


def small(options: LdlvaOptions | None = None) -> tuple[Ldlva, ExpressionNetwork, Batch]:
    """Return a method whose uncertainties and centres are not at their start, its network and a batch."""
    faces, labels = tiny_faces()
    network = tiny_network()
    method = Ldlva(options or LdlvaOptions(neighbours=K), network, training_set(labels))
    with torch.no_grad():
        method.uncertainty.add_(generated(len(labels)).float())
        method.centres.copy_(generated(*method.centres.shape, seed=1).float())
    return method, network, batch_of(faces, labels, torch.tensor([0, 1, 2, 7, 10, 33]), K)


def test_calibration_has_a_floor() -> None:
    scores = np.array([-9.0, -1.31, -1.29, 0.0, 2.0])
    found = calibration(torch.from_numpy(scores)).numpy()
    np.testing.assert_allclose(found, sigmoid(np.maximum(scores, -1.3)), rtol=1e-9)
    assert found[0] == pytest.approx(0.214, abs=1e-3)


def test_targets_mix_the_label_with_the_weighted_neighbours() -> None:
    similarity, calibrated = generated(B, K).sigmoid(), generated(B, K, seed=1).sigmoid()
    probabilities = generated(B, K, N, seed=2).softmax(dim=-1)
    trust, labels = generated(B, seed=3).sigmoid(), torch.tensor([0, 3, 1, 1, 2])
    around = neighbour_distribution(similarity, calibrated, probabilities)
    target = target_distribution(labels, around, trust)
    s, r, p, lam = (t.numpy() for t in (similarity, calibrated, probabilities, trust))
    for i in range(B):
        dbar = sum(s[i, k] * r[i, k] * p[i, k] for k in range(K)) / sum(s[i] * r[i])
        np.testing.assert_allclose(around[i].numpy(), dbar, rtol=1e-9)
        wanted = (1 - lam[i]) * dbar
        wanted[labels[i]] += lam[i]
        np.testing.assert_allclose(target[i].numpy(), wanted, rtol=1e-9)
        assert target[i].sum().item() == pytest.approx(1.0, abs=1e-9)


def test_the_losses_agree_with_numpy() -> None:
    probabilities, target = generated(B, N).softmax(dim=-1), generated(B, N, seed=1).softmax(dim=-1)
    probabilities[0, 1] = 0.0  # the 1e-10 keeps its logarithm finite
    weights = generated(B, seed=2).abs()
    p, d, w = probabilities.numpy(), target.numpy(), weights.numpy()
    wanted = sum(-w[i] * d[i, c] * math.log(p[i, c] + 1e-10) for i in range(B) for c in range(N)) / B
    assert classification_loss(probabilities, target, weights).item() == pytest.approx(wanted, rel=1e-9)
    plain = -(d * np.log(p + 1e-10)).sum() / B
    assert classification_loss(probabilities, target).item() == pytest.approx(plain, rel=1e-9)

    features, centres, trust = generated(B, D), generated(N, D, seed=1), generated(B, seed=2).sigmoid()
    labels = torch.tensor([0, 3, 1, 1, 3])
    f, mu, lam = features.numpy(), centres.numpy(), trust.numpy()
    wanted = 0.5 / B * sum(lam[j] * ((f[j] - mu[y]) ** 2).sum() for j, y in enumerate(labels.tolist()))
    found = discriminative_loss(features, centres, labels, trust)
    assert found.item() == pytest.approx(wanted, rel=1e-9)


def test_centres_are_attracted_by_their_own_faces() -> None:
    features, centres, trust = generated(B, D), generated(N, D, seed=1), generated(B, seed=2).sigmoid()
    labels = torch.tensor([0, 3, 1, 1, 3])  # none of class 2
    f, mu, lam = features.numpy(), centres.numpy(), trust.numpy()
    wanted = mu.copy()
    for c in range(N):
        own = [j for j, y in enumerate(labels.tolist()) if y == c]
        gradient = -sum((lam[j] * (f[j] - mu[c]) for j in own), np.zeros(D)) / (len(own) + 1) / B
        wanted[c] -= 0.5 * gradient
    np.testing.assert_allclose(attracted(centres, features, labels, trust, 0.5).numpy(), wanted, rtol=1e-9)


@pytest.mark.parametrize(("scale", "divisor"), [("dim", D), ("root", math.sqrt(D))])
def test_centres_are_separated(scale: str, divisor: float) -> None:
    centres = generated(N, D)
    mu = centres.numpy()
    pairs = [(i, j) for i in range(N) for j in range(i + 1, N)]
    wanted = sum(math.exp(-((mu[i] - mu[j]) ** 2).sum() / divisor) for i, j in pairs)
    assert separation_loss(centres, scale).item() == pytest.approx(wanted, rel=1e-9)
    moved = mu - 0.05 * separation_gradient(mu, divisor)
    np.testing.assert_allclose(separated(centres, 0.05, scale).numpy(), moved, rtol=1e-9)
    assert separation_loss(separated(centres, 0.05, scale), scale) < separation_loss(centres, scale)


def test_equal_centres_do_not_separate() -> None:
    assert separated(torch.zeros(N, D), 0.05).abs().max() == 0.0


def test_balanced_weights_are_scikit_learns() -> None:
    labels = np.array([0] * 7 + [1] * 2 + [2] * 3)
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    found = balanced_weights(torch.tensor([7.0, 2.0, 3.0], dtype=torch.float64))
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-9)


def calibration_reference(method: Ldlva, features: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Return g of one face and its neighbours, in eval mode, from the weights."""
    x = np.concatenate([np.repeat(features[None], len(near), axis=0), near], axis=1)
    layers = {name: t.detach().double().numpy() for name, t in method.calibration.layers.state_dict().items()}
    for linear, norm in ((0, 1), (3, 4)):
        x = x @ layers[f"{linear}.weight"].T + layers[f"{linear}.bias"]
        x = (x - layers[f"{norm}.running_mean"]) / np.sqrt(layers[f"{norm}.running_var"] + 1e-5)
        x = np.maximum(x * layers[f"{norm}.weight"] + layers[f"{norm}.bias"], 0.0)
    return (x @ layers["6.weight"].T + layers["6.bias"])[:, 0]


@pytest.mark.parametrize("weighted", ["none", "balanced"])
def test_a_whole_step_agrees_with_numpy(weighted: str) -> None:
    method, network, batch = small(LdlvaOptions(neighbours=K, class_weights=weighted))
    if weighted == "balanced":
        method.class_weights.copy_(balanced_weights(torch.tensor([7.0, 2.0, 3.0])))
    network.eval()
    method.eval()
    near = batch.neighbours
    assert near is not None
    said, said_near = (network((f - 0.5) / 0.5) for f in (batch.faces, near.faces.flatten(0, 1)))
    f, p = said.embedding.detach().double().numpy(), said.primary.detach().double().numpy()
    fk = said_near.embedding.detach().double().numpy().reshape(6, K, -1)
    pk = said_near.primary.detach().double().numpy().reshape(6, K, -1)
    lam = sigmoid(method.uncertainty.detach().double().numpy())
    mu, w = method.centres.double().numpy(), method.class_weights.double().numpy()
    classification = discriminative = 0.0
    for i, (row, label) in enumerate(zip(batch.rows.tolist(), batch.labels.tolist(), strict=True)):
        r = sigmoid(np.maximum(calibration_reference(method, f[i], fk[i]), -1.3))
        weights = near.similarity[i].double().numpy() * r
        d = (1 - lam[row]) * (weights @ pk[i]) / weights.sum()
        d[label] += lam[row]
        classification -= w[label] * (d * np.log(p[i] + 1e-10)).sum() / 6
        discriminative += 0.5 / (6 * (1 + K)) * lam[row] * ((f[i] - mu[label]) ** 2).sum()
        for k in range(K):
            other, near_row = int(near.labels[i, k]), int(near.rows[i, k])
            distance = ((fk[i, k] - mu[other]) ** 2).sum()
            discriminative += 0.5 / (6 * (1 + K)) * lam[near_row] * distance
    terms = method(network, batch, NOW)
    assert terms["classification"].item() == pytest.approx(classification, rel=1e-5)
    assert terms["discriminative"].item() == pytest.approx(discriminative, rel=1e-5)
    assert terms["total"].item() == pytest.approx(classification + 0.01 * discriminative, rel=1e-5)
    assert terms["trust"].item() == pytest.approx(lam[batch.rows.numpy()].mean(), rel=1e-5)


def test_the_target_trains_uncertainty_and_calibration() -> None:
    method, network, batch = small()
    method(network, batch, NOW)["total"].backward()
    gradient = method.uncertainty.grad
    assert gradient is not None
    assert gradient.nonzero().flatten().tolist() == sorted(batch.rows.tolist())  # not the neighbours'
    assert all(
        p.grad is not None and p.grad.abs().max() > 0 for p in method.calibration.parameters() if p.ndim > 1
    )


def test_a_fixed_target_trains_neither() -> None:
    method, network, batch = small(LdlvaOptions(neighbours=K, target_gradient=False))
    method(network, batch, NOW)["total"].backward()
    assert all(p.grad is None for p in method.parameters())
    assert any(p.grad is not None for p in network.parameters())
    method.after_step(network, batch)  # has no gradient to step with


def test_the_discriminative_loss_trains_the_features_alone() -> None:
    method, network, batch = small()
    term = method(network, batch, NOW)["discriminative"]
    own = torch.autograd.grad(term, list(method.parameters()), retain_graph=True, allow_unused=True)
    assert all(gradient is None for gradient in own)
    (gradient,) = torch.autograd.grad(term, network.encoder.norm.weight)
    assert gradient.abs().max() > 0


def test_neighbours_carry_no_gradient() -> None:
    method, network, batch = small()
    assert batch.neighbours is not None
    features, probabilities = method.see_neighbours(network, batch.neighbours)
    assert not features.requires_grad
    assert not probabilities.requires_grad
    faces = batch.neighbours.faces.clone().requires_grad_()
    centre = batch.faces.clone().requires_grad_()
    batch = replace(batch, faces=centre, neighbours=replace(batch.neighbours, faces=faces))
    method(network, batch, NOW)["total"].backward()
    assert faces.grad is None
    assert centre.grad is not None
    assert (centre.grad.flatten(1).abs().amax(dim=1) > 0).all()


@pytest.mark.parametrize("in_training", [True, False])
def test_whether_neighbours_move_the_statistics(in_training: bool) -> None:
    method, network, batch = small(LdlvaOptions(neighbours=K, neighbour_training=in_training))
    network.encoder.stages[0].eval()  # as parts that are kept frozen
    assert batch.neighbours is not None
    before = network.encoder.norm.running_mean.clone()
    method.see_neighbours(network, batch.neighbours)
    assert torch.equal(network.encoder.norm.running_mean, before) != in_training
    assert network.training
    assert network.encoder.norm.training
    assert not network.encoder.stages[0][0].training


def test_the_uncertainty_steps_by_its_own_sgd_and_momentum_waits() -> None:
    options = LdlvaOptions(neighbours=K, uncertainty_momentum=0.9)
    method, network, batch = small(options)
    assert [id(p) for p in method.own_parameters()] == [id(method.uncertainty)]
    lam, velocity = method.uncertainty.detach().double().numpy().copy(), np.zeros(36)
    faces, labels = tiny_faces()
    for rows in ([0, 1, 2], [2, 3, 4], [0, 4, 5]):
        method(network, batch_of(faces, labels, torch.tensor(rows), K), NOW)["total"].backward()
        assert method.uncertainty.grad is not None
        gradient = method.uncertainty.grad.double().numpy().copy()
        velocity[rows] = 0.9 * velocity[rows] + gradient[rows]
        lam[rows] -= 10.0 * velocity[rows]
        method.after_step(network, batch)
        assert method.uncertainty.grad is None
    np.testing.assert_allclose(method.uncertainty.detach().numpy(), lam, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(method.velocity.numpy(), velocity, rtol=1e-4, atol=1e-6)


def test_centres_start_at_zero_are_attracted_first_and_separated_then() -> None:
    method, network, batch = small()
    method.centres.zero_()
    start = method.uncertainty.detach().clone()
    method(network, batch, NOW)["total"].backward()
    assert method.seen is not None
    features, labels, trust = method.seen
    assert len(features) == 6 * (1 + K)
    assert batch.neighbours is not None
    rows = torch.cat([batch.rows, batch.neighbours.rows.flatten()])
    torch.testing.assert_close(trust, start.sigmoid()[rows])
    method.after_step(network, batch)
    wanted = attracted(torch.zeros(3, features.shape[1]), features, labels, trust, 0.5).double().numpy()
    wanted -= 0.5 * 0.1 * separation_gradient(wanted, features.shape[1])
    np.testing.assert_allclose(method.centres.numpy(), wanted, rtol=1e-4, atol=1e-6)
    assert set(method.state_dict()) >= {"centres", "velocity", "uncertainty"}


def test_what_it_needs_of_a_batch() -> None:
    method, network, batch = small()
    assert Ldlva(LdlvaOptions(), network, training_set(tiny_faces()[1])).neighbours == 8
    assert method.neighbours == K
    with pytest.raises(TrainingError, match="expected valence and arousal, got none"):
        method(network, replace(batch, neighbours=None), NOW)


@pytest.mark.parametrize(("similarity", "power"), [("l1", 1), ("squared-l2", 2)])
def test_the_similarity_of_its_neighbours_is_the_one_it_asks_for(similarity: str, power: int) -> None:
    _, labels = tiny_faces()
    places = torch.rand(len(labels), 2, generator=torch.Generator().manual_seed(4))
    crops = torch.zeros(len(labels), SIZE, SIZE, 3, dtype=torch.uint8)
    options = LdlvaOptions(neighbours=2, similarity=similarity)
    recipe = Recipe(
        name="tiny",
        network=NetworkOptions(model="grefel-lite-s", classes=CLASSES, input_size=SIZE),
        optimiser=OptimiserOptions(epochs=1, batch_size=12),
        method=options,
    )
    method = Ldlva(options, tiny_network(), training_set(labels))
    maker = BatchMaker(
        recipe, FaceTensors(crops, labels, None, places), method, build_fabric("cpu", "32-true")
    )
    made = maker.make(torch.arange(4))
    apart = (places[:4, None] - places[made["neighbour_rows"]]).numpy()
    wanted = np.exp(-(np.abs(apart) ** power).sum(axis=-1) / 0.5)
    np.testing.assert_allclose(made["similarity"].numpy(), wanted, rtol=1e-5)


def test_it_trains() -> None:
    network = tiny_network()
    method = Ldlva(LdlvaOptions(neighbours=2), network, training_set(tiny_faces()[1]))
    history = train_tiny(method, network)
    assert falls(history["classification"])
    assert falls(history["total"])
    assert method.centres.abs().max() > 0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("neighbours", 0),
        ("similarity", "cosine"),
        ("uncertainty_start", math.inf),
        ("uncertainty_rate", math.nan),
        ("uncertainty_momentum", 1.0),
        ("uncertainty_momentum", math.nan),
        ("discriminative", math.nan),
        ("centre_rate", math.nan),
        ("separation", -1.0),
        ("separation", math.nan),
        ("separation_scale", "none"),
        ("class_weights", "effective"),
    ],
)
def test_options_no_run_can_use_are_named(option: str, value: object) -> None:
    assert refused(rules, LdlvaOptions(), option, value) == [option]
