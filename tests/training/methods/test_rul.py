"""RUL against NumPy, its pairs, where its gradient goes, inference, and a short training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training.methods.tiny_training import (
    NOW,
    falls,
    tiny_faces,
    tiny_network,
    train_tiny,
    training_set,
    voted_batch,
)
from training.methods.rul import Rul, RulOptions, mixed_features, rules, uncertainty
from training.models import ExpressionNetwork, standardise


def rul(network: ExpressionNetwork) -> Rul:
    return Rul(RulOptions(), network, training_set(tiny_faces()[1]))


def test_uncertainty_and_mixture_agree_with_numpy() -> None:
    generator = torch.Generator().manual_seed(0)
    log_variances, means = (torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    partner = torch.tensor([3, 0, 2, 4, 1])
    u = [sum(np.exp(v) for v in row) / 4 for row in log_variances.numpy()]
    np.testing.assert_allclose(uncertainty(log_variances).numpy(), u, rtol=1e-6)
    mu = means.numpy()
    wanted = [(u[a] * mu[a] + u[b] * mu[b]) / (u[a] + u[b]) for a, b in enumerate(partner.tolist())]
    found = mixed_features(means, uncertainty(log_variances), partner)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6)


def branch_by_hand(branch: torch.nn.Sequential, maps: np.ndarray) -> np.ndarray:
    """Return what BN without weights, flattening, a linear layer and BN make of maps, in eval mode."""
    first, _, _, linear, last = branch
    mean, var = first.running_mean.double().numpy(), first.running_var.double().numpy()
    x = (maps - mean[:, None, None]) / np.sqrt(var[:, None, None] + first.eps)
    x = (
        x.reshape(len(maps), -1) @ linear.weight.detach().double().numpy().T
        + linear.bias.detach().double().numpy()
    )
    x = (x - last.running_mean.double().numpy()) / np.sqrt(last.running_var.double().numpy() + last.eps)
    return x * last.weight.detach().double().numpy() + last.bias.detach().double().numpy()


def test_the_loss_is_half_with_each_label_of_a_random_pair() -> None:
    network, batch = tiny_network(head="rul"), voted_batch()
    method = rul(network)
    for _ in range(3):  # statistics of its own for every norm
        method(network, batch, NOW)
    network.eval()
    method.eval()
    with torch.no_grad():
        maps = network.encoder.forward_map(standardise(batch.faces, network)).double().numpy()
    mu, log_variances = (branch_by_hand(b, maps) for b in (network.head.mean, method.log_variance))
    u = np.exp(log_variances).mean(axis=1)
    torch.manual_seed(8)
    partner = torch.randperm(9).tolist()
    w, b = (p.detach().double().numpy() for p in network.head.linear.parameters())
    y, total = batch.targets.double().numpy(), 0.0
    for one, other in enumerate(partner):
        z = w @ ((u[one] * mu[one] + u[other] * mu[other]) / (u[one] + u[other])) + b
        log_p = z - np.log(np.exp(z).sum())
        total += -0.5 * (y[one] @ log_p) - 0.5 * (y[other] @ log_p)
    torch.manual_seed(8)
    terms = method(network, batch, NOW)
    assert partner != list(range(9))
    assert terms["total"].item() == pytest.approx(total / 9, rel=1e-5)
    assert terms["classification"].item() == terms["total"].item()
    assert terms["uncertainty"].item() == pytest.approx(u.mean(), rel=1e-4)


def test_pairs_change_from_step_to_step() -> None:
    network, batch = tiny_network(head="rul").eval(), voted_batch()
    method = rul(network).eval()
    assert len({method(network, batch, NOW)["total"].item() for _ in range(4)}) > 1


def test_inference_is_the_linear_layer_on_the_mean_alone() -> None:
    network, batch = tiny_network(head="rul").eval(), voted_batch()
    with torch.no_grad():
        said = network(standardise(batch.faces, network))
        maps = network.encoder.forward_map(standardise(batch.faces, network)).double().numpy()
    mu = branch_by_hand(network.head.mean, maps)
    w, b = (p.detach().double().numpy() for p in network.head.linear.parameters())
    np.testing.assert_allclose(said.logits.numpy(), mu @ w.T + b, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(said.embedding.numpy(), mu, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(said.probabilities, said.primary, rtol=0, atol=0)
    assert not any("variance" in name for name in network.state_dict())


def test_the_gradient_reaches_mean_variance_and_encoder() -> None:
    network, batch = tiny_network(head="rul"), voted_batch()
    method = rul(network)
    terms = method(network, batch, NOW)
    assert not terms["uncertainty"].requires_grad
    terms["total"].backward()
    unpooled = [p for name, p in network.named_parameters() if not name.startswith("encoder.norm.")]
    assert all(p.grad is not None for p in (*unpooled, *method.parameters()))
    for part in (network.encoder.stem[0], network.head.mean[3], network.head.linear, method.log_variance[3]):
        assert float(part.weight.grad.abs().max()) > 0


def test_it_trains_and_keeps_its_branch_with_the_run() -> None:
    network = tiny_network(head="rul")
    method = rul(network)
    history = train_tiny(method, network)
    # Half of a mixture's target is its partner's: the loss cannot fall to zero.
    assert falls(history["total"], 0.85)
    assert set(history) == {"total", "classification", "uncertainty"}
    assert any(name.startswith("log_variance.") for name in method.state_dict())


def test_it_has_no_options() -> None:
    assert rules(RulOptions()) == ()
