"""RAC and RSL against NumPy in both forms, RAF-DB's weights, the transforms, a short training."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from edge_fer.errors import TrainingError
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
from training.methods import rac_rsl
from training.methods.attention_maps import class_attention_maps
from training.methods.method import Batch, TrainingSet
from training.methods.rac_rsl import (
    TRANSFORMS,
    RacRsl,
    RacRslOptions,
    class_weights,
    consistency_loss,
    rules,
    smooth_over_all,
    smooth_over_others,
)
from training.models import ExpressionNetwork, standardise

# Surprise, fear, disgust, happiness, sadness, anger, neutral.
RAF_DB = (1290, 281, 717, 4772, 1982, 705, 2524)
PRINTED = (0.6712, 2.9315, 1.1740, 0.2141, 0.4518, 1.1933, 0.3642)  # B by systems §4.2
FEW = torch.tensor([0] * 20 + [1] * 12 + [2] * 4)  # of the tiny training set's three classes


def generated(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def faces_with(counts: tuple[int, ...]) -> TrainingSet:
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    return TrainingSet(labels=labels, classes=len(counts))


def method_on(network: ExpressionNetwork, **options: object) -> RacRsl:
    return RacRsl(RacRslOptions(**options), network, training_set(FEW))  # type: ignore[arg-type]


def test_weights_of_raf_db_are_the_printed_ones() -> None:
    found = class_weights(RacRslOptions(), faces_with(RAF_DB))
    np.testing.assert_allclose(found.numpy(), PRINTED, rtol=0, atol=5e-5)
    assert found.sum().item() == pytest.approx(7.0, rel=1e-6)


@pytest.mark.parametrize("beta", [0.9999, 0.99])
def test_weights_are_inverse_effective_numbers_that_sum_to_the_classes(beta: float) -> None:
    inverse = np.array([(1.0 - beta) / (1.0 - beta**n) for n in RAF_DB])
    found = class_weights(RacRslOptions(beta=beta), faces_with(RAF_DB))
    np.testing.assert_allclose(found.numpy(), 7 * inverse / inverse.sum(), rtol=1e-6)


def test_the_codes_weights_of_raf_db_are_inverse_frequencies() -> None:
    found = class_weights(RacRslOptions(variant="code"), faces_with(RAF_DB))
    np.testing.assert_allclose(found.numpy(), [12271 / (10 * n) for n in RAF_DB], rtol=1e-6)


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_a_class_without_faces_is_named(variant: str) -> None:
    labels = torch.tensor([0, 0, 2, 4])
    with pytest.raises(TrainingError, match=r"all 5 classes, got none of class 1, 3; add some or lower"):
        class_weights(RacRslOptions(variant=variant), TrainingSet(labels=labels, classes=5))


def test_smooth_labels_agree_with_equation_8() -> None:
    targets = generated(6, 7).softmax(dim=-1)
    weights = torch.tensor(PRINTED, dtype=torch.float64)
    wanted = np.empty((6, 7))
    for n in range(6):
        for label in range(7):
            wanted[n, label] = 0.9 * targets[n, label].item() + 0.1 * PRINTED[label] / 7
    np.testing.assert_allclose(smooth_over_all(targets, weights, 0.1).numpy(), wanted, rtol=1e-6)


def test_the_codes_smooth_labels_leave_the_true_class_its_share() -> None:
    weights = torch.tensor(PRINTED, dtype=torch.float64)
    one_hot = torch.eye(7, dtype=torch.float64)
    found = smooth_over_others(one_hot, weights, 0.3)
    wanted = np.empty((7, 7))
    for label in range(7):
        others = sum(PRINTED) - PRINTED[label]
        for other in range(7):
            wanted[label, other] = 0.7 if other == label else 0.3 * PRINTED[other] / others
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6)
    votes = generated(4, 7).softmax(dim=-1)
    np.testing.assert_allclose(
        smooth_over_others(votes, weights, 0.3).numpy(), votes.numpy() @ wanted, rtol=1e-6
    )


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_smooth_labels_sum_to_one_and_lean_towards_rare_classes(variant: str) -> None:
    method = RacRsl(
        RacRslOptions(variant=variant), tiny_network(), training_set(torch.tensor([0] * 30 + [1] * 5 + [2]))
    )
    smoothed = method.smooth(torch.eye(3))
    torch.testing.assert_close(smoothed.sum(dim=1), torch.ones(3), rtol=1e-6, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(method.smooth(torch.eye(3)), smoothed, rtol=1e-6, atol=0)
    assert smoothed[0, 2] > smoothed[0, 1] > 0
    assert (smoothed.argmax(dim=1) == torch.arange(3)).all()
    plain = RacRsl(RacRslOptions(variant=variant, smoothing=0.0), tiny_network(), training_set(FEW))
    torch.testing.assert_close(plain.smooth(torch.eye(3)), torch.eye(3), rtol=0, atol=0)


def test_consistency_agrees_with_numpy() -> None:
    maps, aligned = generated(4, 3, 5, 6), generated(4, 3, 5, 6, seed=1)
    b = (0.2, 2.3, 0.5)
    total = 0.0
    for n, label, row, column in np.ndindex(4, 3, 5, 6):
        total += b[label] * (maps[n, label, row, column] - aligned[n, label, row, column]).item() ** 2
    found = consistency_loss(maps, aligned, torch.tensor(b, dtype=torch.float64))
    assert found.item() == pytest.approx(total / (4 * 3 * 5 * 6), rel=1e-6)


def reference(network: ExpressionNetwork, batch: Batch, options: RacRslOptions) -> tuple[float, float]:
    """Return classification and consistency of a batch of mirrored faces, from the network's own answers."""
    z, a = [], []
    with torch.no_grad():
        for faces in (batch.faces, batch.faces.flip(-1)):
            images = standardise(faces, network)
            z.append(network(images).logits.double().numpy())
            a.append(class_attention_maps(network, network.encoder.forward_map(images)).double().numpy())
    counts, y = np.array([20.0, 12.0, 4.0]), batch.targets.double().numpy()
    log_p = [one - np.log(np.exp(one).sum(axis=1, keepdims=True)) for one in z]
    squared = (a[0] - a[1][..., ::-1]) ** 2  # (B, N, h, w)
    if options.variant == "paper":
        b = (1 - 0.9999) / (1 - 0.9999**counts)
        b *= 3 / b.sum()
        soft = (1 - options.smoothing) * y + options.smoothing * b / 3
        return sum(-(soft * one).sum() / 9 for one in log_p), (b[:, None, None] * squared).mean()
    b = 36 / (10 * counts)
    soft = (1 - options.smoothing) * y
    for own in range(3):
        for other in {0, 1, 2} - {own}:
            soft[:, other] += options.smoothing * y[:, own] * b[other] / (b.sum() - b[own])
    return -(soft * log_p[0]).sum() / 9, (b * squared.mean(axis=(2, 3))).sum(axis=1).mean()


@pytest.mark.parametrize(
    "options",
    [
        RacRslOptions(),
        RacRslOptions(consistency=0.0),
        RacRslOptions(smoothing=0.0),
        RacRslOptions(variant="code", consistency=0.1, smoothing=0.3),
        RacRslOptions(variant="code", consistency=0.0, smoothing=0.0),
    ],
)
def test_the_loss_is_that_of_the_variant(options: RacRslOptions) -> None:
    network, batch = tiny_network().eval(), voted_batch()
    terms = RacRsl(options, network, training_set(FEW))(network, batch, NOW)
    classification, consistency = reference(network, batch, options)
    assert terms["classification"].item() == pytest.approx(classification, rel=1e-5)
    assert terms["consistency"].item() == pytest.approx(consistency, rel=1e-4)
    total = classification + options.consistency * consistency
    assert terms["total"].item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("transform", list(TRANSFORMS))
def test_consistency_trains_both_passes_but_not_the_head(transform: str) -> None:
    network, batch = tiny_network(), voted_batch()
    passes = maps_of_passes(network)
    method_on(network, transform=transform)(network, batch, NOW)["consistency"].backward()
    assert len(passes) == 2
    assert all(maps.grad is not None and float(maps.grad.abs().max()) > 0 for maps in passes)
    assert network.head.linear.weight.grad is None


@pytest.mark.parametrize("variant", ["paper", "code"])
@pytest.mark.parametrize("transform", list(TRANSFORMS))
def test_it_takes_batches_in_bfloat16(variant: str, transform: str) -> None:
    network, batch = tiny_network().eval(), voted_batch()
    method = method_on(network, variant=variant, transform=transform)
    losses = []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(2)
        given = replace(batch, faces=batch.faces.to(dtype), targets=batch.targets.to(dtype))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            terms = method(network, given, NOW)
        assert all(value.dtype == torch.float32 for value in terms.values())
        losses.append(terms["total"].item())
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_flipping_undoes_itself() -> None:
    change, undo = TRANSFORMS["flip"]
    faces = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(change(faces)[..., 0], faces[..., -1], rtol=0, atol=0)
    torch.testing.assert_close(undo(change(faces)), faces, rtol=0, atol=0)


def test_scaling_shrinks_the_face_and_resizes_the_map_accordingly() -> None:
    change, undo = TRANSFORMS["scale"]
    place = (torch.arange(64) + 0.5) / 64 * 2 - 1  # pixel centres in -1..1
    ramp = place.expand(1, 3, 64, 64).contiguous()  # brightness says the column
    # What was at p is at 0.75 p; what is outside repeats the border.
    wanted = (place / rac_rsl.SCALE).clamp(place[0], place[-1]).expand(1, 3, 64, 64)
    torch.testing.assert_close(change(ramp), wanted, rtol=0, atol=1e-5)
    column = ramp.transpose(2, 3).contiguous()
    torch.testing.assert_close(change(column), wanted.transpose(2, 3), rtol=0, atol=1e-5)
    # A map of the shrunk face, on a coarser grid, is the map of the face after undoing.
    coarse = (torch.arange(8) + 0.5) / 8 * 2 - 1
    shrunk = (coarse / rac_rsl.SCALE).expand(1, 2, 8, 8).contiguous()
    torch.testing.assert_close(undo(shrunk), coarse.expand(1, 2, 8, 8), rtol=0, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(change(ramp), wanted, rtol=0, atol=1e-5)


def test_intensity_changes_every_face_by_a_factor_of_its_own_and_no_place() -> None:
    change, undo = TRANSFORMS["intensity"]
    torch.manual_seed(4)
    changed = change(torch.full((200, 3, 4, 4), 0.5))
    factors = changed[:, 0, 0, 0] / 0.5
    torch.testing.assert_close(changed, factors.reshape(-1, 1, 1, 1).expand_as(changed) * 0.5)
    assert len(factors.unique()) > 190
    assert 0.5 <= factors.min() < 0.6
    assert 1.4 < factors.max() <= 1.5
    assert change(torch.ones(50, 3, 4, 4)).max() == 1.0
    torch.manual_seed(4)
    torch.testing.assert_close(change(torch.full((200, 3, 4, 4), 0.5)), changed, rtol=0, atol=0)
    maps = torch.randn(2, 3, 4, 4)
    assert undo(maps) is maps


@pytest.mark.parametrize(
    "options",
    [
        RacRslOptions(),
        RacRslOptions(variant="code", consistency=0.1, smoothing=0.3),
        RacRslOptions(transform="scale"),
        RacRslOptions(transform="intensity"),
    ],
    ids=["paper", "code", "scale", "intensity"],
)
def test_it_trains(options: RacRslOptions) -> None:
    network = tiny_network()
    method = RacRsl(options, network, training_set(tiny_faces()[1]))
    history = train_tiny(method, network)
    # Smoothed targets have an entropy that no loss goes below.
    assert falls(history["total"], 0.85)
    assert falls(history["classification"], 0.85)
    assert set(history) == {"total", "classification", "consistency"}
    assert not list(method.parameters())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("variant", "both"),
        ("consistency", -1.0),
        ("consistency", math.nan),
        ("smoothing", 1.0),
        ("smoothing", math.nan),
        ("beta", 1.0),
        ("beta", math.nan),
        ("transform", "rotate"),
    ],
)
def test_options_no_run_can_use_are_named(option: str, value: object) -> None:
    assert refused(rules, RacRslOptions(), option, value) == [option]
