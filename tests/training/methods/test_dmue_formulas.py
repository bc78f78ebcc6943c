"""DMUE's formulas against NumPy, and the supplement's claim about the similarity to a class."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.training.methods.dmue_reference import row_normalised, softmax
from training.methods.dmue import (
    class_similarities,
    ramp_down,
    ramp_up,
    scaled,
    sharpen,
    similarity_loss,
    soft_loss,
    with_class,
    without_class,
)

B, N, D = 7, 4, 6
LABELS = torch.tensor([0, 1, 2, 3, 1, 3, 0])


def generated(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_ramps() -> None:
    assert ramp_up(0, 9) == pytest.approx(math.exp(-5.0))
    assert ramp_up(3, 9) == pytest.approx(math.exp(-5.0 * 4.0 / 9.0))
    assert ramp_up(3, 9, factor=1.0) == pytest.approx(math.exp(-4.0 / 9.0))
    assert ramp_up(8, 9) == pytest.approx(math.exp(-5.0 / 81.0))
    assert ramp_up(9, 9) == ramp_up(10, 9) == 1.0
    assert ramp_down(0, 9) == ramp_down(8, 9) == ramp_down(9, 9) == 1.0
    assert ramp_down(12, 9) == pytest.approx(math.exp(-0.0625))


def test_a_branch_numbers_the_classes_it_knows() -> None:
    assert without_class(torch.tensor([0, 1, 3, 4]), 2).tolist() == [0, 1, 2, 3]
    said = torch.tensor([[0.1, 0.2, 0.7]])
    torch.testing.assert_close(with_class(said, 1), torch.tensor([[0.1, 0.0, 0.2, 0.7]]))
    torch.testing.assert_close(with_class(said, 0), torch.tensor([[0.0, 0.1, 0.2, 0.7]]))
    torch.testing.assert_close(with_class(said, 3), torch.tensor([[0.1, 0.2, 0.7, 0.0]]))


def test_sharpening_above_one_flattens() -> None:
    p = generated(B, N).softmax(dim=-1)
    powered = p.numpy() ** (1 / 1.2)
    wanted = powered / powered.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(sharpen(p, 1.2).numpy(), wanted, rtol=1e-9)
    assert (sharpen(p, 1.2).amax(dim=1) < p.amax(dim=1)).all()


@pytest.mark.parametrize("masked", [True, False])
def test_the_soft_loss_agrees_with_numpy(masked: bool) -> None:
    logits, latent = generated(B, N), generated(B, N, seed=1).softmax(dim=-1)
    total = 0.0
    for n in range(B):
        p = softmax(logits[n].numpy())
        if masked:
            p[LABELS[n]] = 0.0
        total += ((p - latent[n].numpy()) ** 2).sum()
    found = soft_loss(logits, latent, LABELS if masked else None)
    assert found.item() == pytest.approx(total / (B * N), rel=1e-9)


def test_similarity_preserving_agrees_with_the_supplement() -> None:
    target, auxiliary = generated(B, D), generated(B, D - 1, seed=1)
    kept = LABELS != 1
    a_tar, a_aux = row_normalised(target.numpy()), row_normalised(auxiliary.numpy())
    total = 0.0
    for q in range(B):
        for p in range(B):
            if LABELS[q] != 1 and LABELS[p] != 1:
                total += (a_tar[q, p] - a_aux[q, p]) ** 2
    found = similarity_loss(target, auxiliary, kept).item()
    assert found == pytest.approx(total / 5**2, rel=1e-9)
    # Choosing the faces first and scaling the rows then, as the code does, is another number.
    first = similarity_loss(target[kept], auxiliary[kept], kept[kept]).item()
    assert first != pytest.approx(found, rel=1e-3)


def test_class_similarities_are_mean_cosines_and_are_scaled_by_row() -> None:
    features = generated(B, D)
    f = features.numpy()
    wanted = np.zeros((B, N))
    for n in range(B):
        for c in range(N):
            own = [m for m in range(B) if LABELS[m] == c]
            cosines = [f[n] @ f[m] / np.linalg.norm(f[n]) / np.linalg.norm(f[m]) for m in own]
            wanted[n, c] = np.mean(cosines)
    found = class_similarities(features, LABELS, N)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-9)
    low, high = wanted.min(axis=1, keepdims=True), wanted.max(axis=1, keepdims=True)
    np.testing.assert_allclose(scaled(found).numpy(), (wanted - low) / (high - low), rtol=1e-9)
    assert scaled(torch.full((1, 3), 0.5)).tolist() == [[0.0, 0.0, 0.0]]


def test_the_similarity_to_a_class_falls_with_the_angle_to_its_centre() -> None:
    """S = cos(alpha) E[cos(theta)] = cos(alpha) exp(-sigma^2 / 2) (supplement, section 4), by Monte Carlo.

    Faces of a class are x = cos(theta) c + sin(theta) z, z uniform among the directions orthogonal to c.
    """
    generator = np.random.default_rng(11)
    count, dim, sigma, alpha = 200_000, 8, 0.6, 0.9
    theta = generator.normal(0.0, sigma, count)
    z = generator.normal(size=(count, dim - 1))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    x = np.concatenate([np.cos(theta)[:, None], np.sin(theta)[:, None] * z], axis=1)
    face = np.zeros(dim)
    face[:2] = math.cos(alpha), math.sin(alpha)
    features = torch.from_numpy(np.concatenate([face[None], x]))
    labels = torch.cat([torch.tensor([1]), torch.zeros(count, dtype=torch.int64)])
    found = class_similarities(features, labels, 2)[0, 0].item()
    assert found == pytest.approx(math.cos(alpha) * math.exp(-(sigma**2) / 2), abs=2e-3)
