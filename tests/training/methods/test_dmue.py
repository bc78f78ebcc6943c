"""Whole steps of DMUE against NumPy; which gradients flow; what infers in the end."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from edge_fer.errors import TrainingError
from tests.training.methods.dmue_reference import (
    linear,
    negative_log,
    numpy_of,
    row_normalised,
    softmax,
    uncertainty_reference,
)
from tests.training.methods.tiny_training import (
    CLASSES,
    batch_of,
    falls,
    refused,
    tiny_faces,
    tiny_network,
    train_tiny,
    training_set,
)
from training.methods import dmue
from training.methods.dmue import (
    Dmue,
    DmueOptions,
    latent_distributions,
    rules,
    uncertainties,
    without_class,
)
from training.methods.method import Batch, Moment
from training.models import ExpressionNetwork

LATE = Moment(epoch=12, epochs=20, step=0, steps=1)
EARLY = Moment(epoch=3, epochs=20, step=0, steps=1)


def small(options: DmueOptions | None = None) -> tuple[Dmue, ExpressionNetwork, Batch]:
    """Return a method whose branches and statistics have grown apart, its network and a complete batch."""
    faces, labels = tiny_faces()
    network = tiny_network()
    method = Dmue(options or DmueOptions(), network, training_set(labels))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        network.encoder.norm.running_mean.add_(torch.rand(80, generator=generator))
        for tensor in (*method.parameters(), *method.buffers()):
            if tensor.is_floating_point():
                tensor.mul_(1.0 + 0.3 * torch.rand(tensor.shape, generator=generator))
    return method, network, batch_of(faces, labels, torch.tensor([0, 1, 2, 3, 4, 5, 7, 10]))


@pytest.mark.parametrize("latent", ["negatives", "average"])
@pytest.mark.parametrize("similarity", ["supplement", "code"])
@pytest.mark.parametrize("neck", [True, False])
def test_a_whole_step_agrees_with_numpy(latent: str, similarity: str, neck: bool) -> None:
    method, network, batch = small(DmueOptions(latent=latent, similarity=similarity, neck=neck))
    network.eval()
    method.eval()
    encoder, labels = network.encoder, batch.labels.tolist()
    count = len(labels)
    trunk = encoder.trunk((batch.faces - 0.5) / 0.5)
    maps = encoder.last(trunk)
    target = numpy_of(encoder.pool(maps))
    logits = linear(target, network.head.linear)
    auxiliary = preserved = 0.0
    mined, averaged = np.zeros((count, CLASSES)), np.zeros((count, CLASSES))
    for i, (branch, head) in enumerate(zip(method.branches, method.heads_of_branches, strict=True)):
        pooled = branch(trunk).mean(dim=(2, 3))
        features = numpy_of(method.neck(pooled) if neck else pooled)
        z = linear(features, head)
        if latent == "average":
            own, known = list(range(count)), labels
            averaged += softmax(z) / CLASSES
        else:
            own = [n for n in range(count) if labels[n] != i]
            known = [labels[n] - (labels[n] > i) for n in own]
            for n in set(range(count)) - set(own):
                powered = softmax(z[n]) ** (1 / 1.2)
                mined[n] = np.insert(powered / powered.sum(), i, 0.0)
        auxiliary += negative_log(z[own], known) / CLASSES
        if similarity == "supplement":
            difference = (row_normalised(target) - row_normalised(features))[np.ix_(own, own)]
        else:
            difference = row_normalised(target[own]) - row_normalised(z[own])
        preserved += (difference**2).sum() / len(own) ** 2 / CLASSES
    p = softmax(logits)
    if latent == "average":
        mined = averaged ** (1 / 1.2) / (averaged ** (1 / 1.2)).sum(axis=1, keepdims=True)
    else:
        p = p * (1.0 - np.eye(CLASSES)[labels])
    soft = ((p - mined) ** 2).mean()
    u = uncertainty_reference(method, numpy_of(maps.mean(dim=(2, 3))), labels)
    classification = negative_log(u[:, None] * logits, labels)
    terms = {name: value.item() for name, value in method(network, batch, LATE).items()}
    target_terms = classification + 0.5 * soft + 1000.0 * preserved
    early = method(network, batch, EARLY)["total"].item()
    assert early == pytest.approx(math.exp(-20 / 9) * target_terms + auxiliary, rel=1e-5)
    wanted = {
        "total": target_terms + math.exp(-0.0625) * auxiliary,
        "classification": classification,
        "soft": soft,
        "similarity": preserved,
        "auxiliary": auxiliary,
        "complete": 1.0,
    }
    assert terms == {name: pytest.approx(value, rel=1e-5) for name, value in wanted.items()}
    images = (batch.faces - 0.5) / 0.5
    found = latent_distributions(method, network, images, batch.labels)
    np.testing.assert_allclose(found.numpy(), mined, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(uncertainties(method, network, images, batch.labels).numpy(), u, rtol=1e-5)


def test_branches_start_as_copies_of_the_networks_last_stage() -> None:
    _, network, _ = small()
    method = Dmue(DmueOptions(), network, training_set(tiny_faces()[1]))
    last = network.encoder.last.state_dict()
    for branch in method.branches:
        assert all(torch.equal(tensor, last[name]) for name, tensor in branch.state_dict().items())
    with torch.no_grad():
        next(method.branches[0].parameters()).zero_()
    for other in (network.encoder.last, method.branches[1]):
        assert next(other.parameters()).abs().max() > 0


def test_gradients_stop_at_the_latent_distributions_and_reach_the_uncertainty() -> None:
    method, network, batch = small()
    terms = method(network, batch, LATE)
    own = dict(method.named_parameters())

    def reached(term: str) -> set[str]:
        given = torch.autograd.grad(terms[term], [p for p in own.values() if p.requires_grad],
                                    retain_graph=True, allow_unused=True)  # fmt: skip
        names = [name for name, p in own.items() if p.requires_grad]
        return {name.split(".")[0] for name, g in zip(names, given, strict=True) if g is not None and g.any()}

    assert reached("soft") == set()
    assert reached("classification") == {"uncertainty"}
    assert reached("auxiliary") == {"branches", "heads_of_branches", "neck"}
    assert reached("similarity") == {"branches", "neck"}
    trunk = next(network.encoder.stages[0].parameters())
    for term in ("soft", "classification", "auxiliary", "similarity"):
        (gradient,) = torch.autograd.grad(terms[term], trunk, retain_graph=True)
        assert gradient.any(), term
    assert not method.neck.bias.requires_grad


def test_a_branch_never_learns_from_faces_of_its_class() -> None:
    method, network, batch = small(DmueOptions(dropout=0.0))
    network.eval()
    method.eval()  # faces meet in batch statistics
    trunk = network.encoder.trunk(batch.faces).detach().requires_grad_()
    features = method.features(trunk, 1)
    known = without_class(batch.labels, 1)[batch.labels != 1]
    loss = nn.functional.cross_entropy(method.logits(features, 1)[method.learnt(batch.labels, 1)], known)
    loss.backward()
    assert trunk.grad is not None
    moved = trunk.grad.flatten(1).abs().amax(dim=1) > 0
    assert moved.tolist() == (batch.labels != 1).tolist()


def test_mining_uses_running_statistics_and_leaves_them() -> None:
    method, network, batch = small()
    assert method.training
    trunk = network.encoder.trunk(batch.faces)
    before = copy.deepcopy(method.state_dict())
    latent = method.mine(trunk, batch.labels)
    assert all(torch.equal(before[name], tensor) for name, tensor in method.state_dict().items())
    assert not latent.requires_grad
    assert method.training
    assert all(part.training for part in method.modules())
    torch.testing.assert_close(method.mine(trunk, batch.labels), latent, rtol=0, atol=0)
    alone = torch.cat([method.mine(trunk[n : n + 1], batch.labels[n : n + 1]) for n in range(8)])
    torch.testing.assert_close(alone, latent, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(latent.sum(dim=1), torch.ones(8))
    assert (latent[torch.arange(8), batch.labels] == 0.0).all()


def test_dropout_is_for_training_alone() -> None:
    method, network, batch = small()
    network.eval()
    torch.manual_seed(1)
    training = [method(network, batch, LATE)["classification"].item() for _ in range(2)]
    method.eval()
    inferring = [method(network, batch, LATE)["total"].item() for _ in range(2)]
    assert training[0] != training[1]
    assert inferring[0] == inferring[1]


def test_the_auxiliary_branches_leave_what_infers_alone() -> None:
    method, network, batch = small()
    alone = copy.deepcopy(network)
    method(network, batch, LATE)
    alone(((batch.faces - 0.5) / 0.5).contiguous(memory_format=torch.channels_last))
    assert set(network.state_dict()) == set(alone.state_dict())
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], tensor, msg=name)


def test_a_batch_short_of_a_class_trains_the_target_branch_alone() -> None:
    method, network, _ = small(DmueOptions(dropout=0.0))
    faces, labels = tiny_faces()
    batch = batch_of(faces, labels, torch.tensor([0, 1, 2, 3, 4]))  # one face of the third class
    logits = copy.deepcopy(network)((batch.faces - 0.5) / 0.5).logits.detach().double().numpy()
    terms = method(network, batch, EARLY)
    wanted = negative_log(logits, batch.labels.tolist())
    assert terms["classification"].item() == pytest.approx(wanted, rel=1e-5)
    assert terms["total"].item() == pytest.approx(math.exp(-20 / 9) * wanted, rel=1e-5)
    assert [terms[name].item() for name in ("soft", "similarity", "auxiliary", "complete")] == [0.0] * 4
    complete = method(network, batch_of(faces, labels, torch.arange(6)), EARLY)
    assert list(complete) == list(terms)
    assert complete["complete"].item() == 1.0
    terms["total"].backward()
    assert all(p.grad is None for p in method.parameters())
    assert network.head.linear.weight.grad is not None


def test_what_evaluation_asks_for_does_not_depend_on_the_parts_it_is_computed_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method, network, _ = small()
    faces, labels = tiny_faces()
    images = (faces - 0.5) / 0.5
    whole = [ask(method, network, images, labels) for ask in (latent_distributions, uncertainties)]
    monkeypatch.setattr(dmue, "CHUNK", 5)
    parts = [ask(method, network, images, labels) for ask in (latent_distributions, uncertainties)]
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert whole[0].shape == (36, CLASSES)
    assert whole[1].shape == (36,)
    assert ((whole[1] > 0) & (whole[1] < 1)).all()
    assert network.training
    assert method.training


def test_networks_and_faces_it_cannot_train_are_refused() -> None:
    network = tiny_network()
    with pytest.raises(TrainingError, match="2 or more training faces each, got 3 classes, 1 faces of happi"):
        Dmue(DmueOptions(), network, training_set(torch.tensor([0, 0, 1, 2, 2, 2])))
    network.encoder = nn.Flatten()
    with pytest.raises(
        TrainingError, match=r"expected a network with a last stage to copy, got grefel-lite-s"
    ):
        Dmue(DmueOptions(), network, training_set(tiny_faces()[1]))


@pytest.mark.parametrize(
    ("options", "epoch"),
    [
        (DmueOptions(ramp_epochs=1), 1),  # both ramps at 1
        (DmueOptions(similarity="code", latent="average", neck=False), 0),
    ],
    ids=["published", "variants"],
)
def test_it_trains(options: DmueOptions, epoch: int) -> None:
    network = tiny_network()
    method = Dmue(options, network, training_set(tiny_faces()[1]))
    before = copy.deepcopy(method.uncertainty.state_dict())
    history = train_tiny(method, network, epoch)
    assert falls(history["total"])
    assert falls(history["auxiliary"])
    assert sum(history["complete"]) > 20
    assert any(not torch.equal(before[name], t) for name, t in method.uncertainty.state_dict().items())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("latent", "all"),
        ("temperature", 0.0),
        ("temperature", math.nan),
        ("dropout", 1.0),
        ("dropout", math.nan),
        ("similarity", "cosine"),
        ("omega", math.nan),
        ("gamma", -1.0),
        ("gamma", math.inf),
        ("ramp_epochs", 0),
        ("ramp_factor", math.nan),
    ],
)
def test_options_no_run_can_use_are_named(option: str, value: object) -> None:
    assert refused(rules, DmueOptions(), option, value) == [option]
