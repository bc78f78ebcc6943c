"""GReFEL's ablations and variants: what the head leaves out, the printed and ARBEx forms against NumPy."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from edge_fer.errors import TrainingError
from training.methods.grefel import (
    Grefel,
    GrefelOptions,
    Stage,
    arbex_anchor_loss,
    arbex_centre_loss,
    loss_terms,
    trusted,
)
from training.methods.method import Batch, Moment, TrainingSet
from training.models import DEFAULTS, ExpressionNetwork, build_from_spec
from training.models.balancing import BALANCING, BalancingOptions, HeadOutput, ReliabilityBalancing

CLASSES, ANCHORS, DIM, BATCH = 4, 3, 6, 5
FACES = TrainingSet(labels=torch.tensor([0, 0, 0, 1, 1, 2, 2, 3]), classes=CLASSES)


def network(balancing: str = "both", **changes: Any) -> ExpressionNetwork:
    torch.manual_seed(1)
    spec = replace(
        DEFAULTS["grefel-lite-s"],
        labels=DEFAULTS["grefel-lite-s"].labels[:CLASSES],
        input_size=16,
        balancing=balancing,
        **changes,
    )
    return build_from_spec(spec)


def head(balancing: str) -> ReliabilityBalancing:
    torch.manual_seed(2)
    options = BalancingOptions(balancing=balancing, anchors=ANCHORS, dropout=0.0)
    return ReliabilityBalancing(DIM, CLASSES, options).double().eval()


def entropy_confidence(p: np.ndarray) -> np.ndarray:
    return np.array([1.0 + sum(v * math.log(v) for v in row) / math.log(len(row)) for row in p])


def said(balancing: str) -> tuple[HeadOutput, np.ndarray]:
    embedding = torch.randn(BATCH, DIM, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.inference_mode():
        return head(balancing)(embedding), embedding.numpy()


def test_one_correction_alone_is_the_correction() -> None:
    """Each part's own distribution from the weights, and the mixture of Eq. 19 with the primary one."""
    for balancing in ("anchors", "attention"):
        output, e = said(balancing)
        weights = {name: tensor.numpy() for name, tensor in head(balancing).state_dict().items()}
        if balancing == "anchors":
            anchors = weights["anchor_correction.anchors"]
            d = np.sqrt(((e[:, None, None] - anchors) ** 2).sum(axis=-1))
            s = np.exp(-d) / np.exp(-d).sum(axis=(1, 2), keepdims=True)
            t = s.sum(axis=-1)
            np.testing.assert_allclose(output.by_anchor, t, rtol=1e-9)
        else:
            z = (
                e @ weights["attentive_correction.value.weight"].T
                + weights["attentive_correction.value.bias"]
            )
            p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
            t = p.reshape(BATCH, CLASSES, -1).sum(axis=-1)
            assert output.by_anchor is None and output.distances is None
        np.testing.assert_allclose(output.correction, t, rtol=1e-9)
        assert output.anchor_weight.tolist() == [1.0 if balancing == "anchors" else 0.0] * BATCH
        primary = output.primary.numpy()
        c_t, c_l = entropy_confidence(t), entropy_confidence(primary)
        w = (c_t / (c_t + c_l))[:, None]
        np.testing.assert_allclose(output.probabilities, w * t + (1 - w) * primary, rtol=1e-7)


def test_without_balancing_the_primary_distribution_is_the_answer() -> None:
    output, _ = said("none")
    assert output.probabilities is output.primary
    assert output.correction is None and output.correction_weight.tolist() == [0.0] * BATCH


@pytest.mark.parametrize("balancing", BALANCING)
def test_a_head_has_the_parts_of_its_balancing_alone(balancing: str) -> None:
    names = {name.partition(".")[0] for name in head(balancing).state_dict()}
    expected = {"primary", "anchor_correction", "attentive_correction"}
    if balancing in ("none", "attention"):
        expected.discard("anchor_correction")
    if balancing in ("none", "anchors"):
        expected.discard("attentive_correction")
    assert names == expected


def test_an_unknown_balancing_is_refused() -> None:
    with pytest.raises(ValueError, match="expected balancing none, anchors, attention, both, got 'all'"):
        head("all")


def test_the_printed_order_drops_out_before_the_norm() -> None:
    kinds = [type(layer).__name__ for layer in network(printed_order=True).head.primary]
    assert kinds == ["Linear", "ReLU", "Dropout", "BatchNorm1d"] * 2 + ["Linear"]


def test_arbex_repels_the_same_anchor_of_other_classes() -> None:
    a = np.random.default_rng(0).normal(size=(CLASSES, ANCHORS, DIM))
    pairs = [(p, q) for p in range(CLASSES) for q in range(CLASSES) if p != q]
    squared = sum(((a[p, j] - a[q, j]) ** 2).sum() for p, q in pairs for j in range(ANCHORS))
    expected = -squared / math.sqrt(DIM) / ANCHORS**2
    assert float(arbex_anchor_loss(torch.from_numpy(a))) == pytest.approx(expected, rel=1e-10)


def test_arbex_attracts_by_distance_and_confidence() -> None:
    rng = np.random.default_rng(1)
    d, labels = rng.uniform(0.1, 3, (BATCH, CLASSES, ANCHORS)), np.array([0, 1, 2, 3, 1])
    p = rng.dirichlet(np.ones(CLASSES), BATCH)
    rows = [
        c * min(d[n, y]) / math.sqrt(DIM)
        for n, (c, y) in enumerate(zip(entropy_confidence(p), labels, strict=True))
    ]
    got = arbex_centre_loss(torch.from_numpy(d), torch.from_numpy(labels), torch.from_numpy(p), DIM)
    assert float(got) == pytest.approx(np.mean(rows), rel=1e-9)


@pytest.mark.parametrize("trust", [0.0, 0.3, 1.0])
def test_arbex_trusts_the_correction_step_by_step(trust: float) -> None:
    output, _ = said("both")
    assert output.correction is not None
    first, t = output.primary.numpy(), output.correction.numpy()
    c = entropy_confidence(first)[:, None]
    inner = c * first + (1 - c) * t
    np.testing.assert_allclose(trusted(output, trust), (1 - trust) * first + trust * inner, rtol=1e-7)


@pytest.mark.parametrize("step", [0, 3, 10])
def test_a_step_of_arbex_weighs_classes_and_trusts_by_the_share_of_the_run(step: int) -> None:
    net = network().eval()
    method = Grefel(GrefelOptions(variant="arbex", warmup_epochs=0), net, FACES)
    labels = FACES.labels
    targets = torch.nn.functional.one_hot(labels, CLASSES).float()
    batch = Batch(faces=torch.rand(8, 3, 16, 16), labels=labels, targets=targets, rows=labels)
    with torch.inference_mode():
        terms = method(net, batch, Moment(epoch=0, epochs=1, step=step, steps=10))
        output = method.see(net, batch.faces)
    assert output.correction is not None and output.distances is not None
    trust = step / 10
    first, t = output.primary.double().numpy(), output.correction.double().numpy()
    c = entropy_confidence(first)[:, None]
    judged = (1 - trust) * first + trust * (c * first + (1 - c) * t)
    smoothed = 0.89 * targets.numpy() + 0.11 / CLASSES
    weights = 8 / CLASSES / np.array([3, 2, 2, 1])  # all faces over the classes, over each one's faces
    loss = -(weights * smoothed * np.log(judged)).sum(axis=1).mean()
    assert terms["classification"].item() == pytest.approx(loss, rel=1e-5)
    anchors = net.head.anchor_correction.anchors.detach()
    repelled = trust * float(arbex_anchor_loss(anchors))
    assert terms["anchor"].item() == pytest.approx(repelled, rel=1e-5, abs=1e-9)
    nearest = output.distances.numpy()[np.arange(8), labels].min(axis=1)
    attracted = trust * (c[:, 0] * nearest).mean() / math.sqrt(anchors.shape[-1])
    assert terms["centre"].item() == pytest.approx(attracted, rel=1e-4, abs=1e-9)


def test_the_paper_has_no_margin() -> None:
    output, _ = said("both")
    anchors = 100.0 * head("both").anchor_correction.anchors.detach()
    labels = torch.tensor([0, 1, 2, 3, 1])
    targets = torch.nn.functional.one_hot(labels, CLASSES).double()
    batch = Batch(faces=targets, labels=labels, targets=targets, rows=labels)
    a = anchors.numpy().reshape(-1, DIM)
    squared = [((p - q) ** 2).mean() for i, p in enumerate(a) for j, q in enumerate(a) if i != j]
    stage = Stage(balanced=True)
    terms = {
        name: loss_terms(GrefelOptions(variant=name), output, anchors, batch, None, stage)["anchor"].item()
        for name in ("paper", "margin")
    }
    assert terms == {"paper": pytest.approx(-np.mean(squared)), "margin": pytest.approx(-4.0)}


@pytest.mark.parametrize("balancing", BALANCING)
@pytest.mark.parametrize("variant", ["margin", "paper", "arbex"])
def test_every_ablation_trains(balancing: str, variant: str) -> None:
    net = network(balancing)
    method = Grefel(GrefelOptions(variant=variant, warmup_epochs=0), net, FACES)
    moment = Moment(epoch=0, epochs=1, step=5, steps=10)
    rows = torch.arange(8)
    faces = torch.rand(8, 3, 16, 16)
    placed = method.begin_epoch(net, rows, lambda chosen: torch.randn(len(chosen), 80), moment)
    assert placed == (balancing in ("anchors", "both"))
    targets = torch.nn.functional.one_hot(FACES.labels, CLASSES).float()
    batch = Batch(faces=faces, labels=FACES.labels, targets=targets, rows=rows)
    optimiser = torch.optim.Adam([*net.parameters(), *method.parameters()], lr=3e-3)
    names, first, last = set(), 0.0, 0.0
    for step in range(25):
        terms = method(net, batch, moment)
        assert all(bool(torch.isfinite(value)) for value in terms.values())
        names.add(tuple(terms))
        last = terms["classification"].item()
        first = last if step == 0 else first
        optimiser.zero_grad()
        terms["total"].backward()
        optimiser.step()
    assert len(names) == 1 and last < first


def test_anchors_are_placed_once_when_the_warm_up_is_over() -> None:
    net = network()
    method = Grefel(GrefelOptions(warmup_epochs=2), net, FACES)

    def embed(rows: torch.Tensor) -> torch.Tensor:
        return torch.arange(80.0).repeat(len(rows), 1) + 1000 * FACES.labels[rows, None]

    for epoch in range(4):
        moment = Moment(epoch=epoch, epochs=4, step=0, steps=1, seed=3)
        assert method.begin_epoch(net, torch.arange(8), embed, moment) == (epoch == 2)
    anchors = net.head.anchor_correction.anchors.detach()
    nearest = (anchors[:, 0].mean(dim=1) / 1000).round().tolist()
    assert nearest == [0.0, 1.0, 2.0, 3.0]


def test_anchors_that_were_trained_stay() -> None:
    net = network()
    method = Grefel(GrefelOptions(warmup_epochs=0), net, FACES)
    moment = Moment(epoch=0, epochs=4, step=0, steps=1, pretrained=True)
    assert not method.begin_epoch(net, torch.arange(8), lambda rows: torch.zeros(len(rows), 80), moment)


def test_a_delta_of_training_needs_anchors() -> None:
    with pytest.raises(
        TrainingError, match=r"expected a head with anchors where method.training_delta is set"
    ):
        Grefel(GrefelOptions(training_delta=2.0), network("attention"), FACES)
