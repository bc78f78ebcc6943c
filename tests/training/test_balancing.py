"""The reliability-balancing head against NumPy in float64, and where its formulas break down."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.models import build, calibrated
from training.models.balancing import (
    BalancingOptions,
    ReliabilityBalancing,
    confidence,
    first_weight,
    mix,
)
from training.models.heads import LinearHead

Array = NDArray[np.float64]
DIM = 12


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max())
    return powers / powers.sum()


def certainty(p: Array) -> float:
    """Return 1 - H(p) / log N of one distribution, 0 log 0 = 0."""
    entropy = -sum(value * math.log(value) for value in p if value > 0)
    return min(1.0, max(0.0, 1 - entropy / math.log(len(p))))


def combine(first: Array, second: Array) -> tuple[Array, float]:
    """Return (c1 p1 + c2 p2) / (c1 + c2) and the first one's share; equal shares where both know nothing."""
    c1, c2 = certainty(first), certainty(second)
    share = c1 / (c1 + c2) if c1 + c2 > 1e-6 else 0.5
    return share * first + (1 - share) * second, share


def primary_reference(weights: dict[str, Array], e: Array) -> Array:
    """Linear, ReLU, BN with running statistics, twice; Linear; softmax (dropout is off)."""
    x = e
    for linear, norm in (("0", "2"), ("4", "6")):
        x = np.maximum(weights[f"primary.{linear}.weight"] @ x + weights[f"primary.{linear}.bias"], 0)
        x = (x - weights[f"primary.{norm}.running_mean"]) / np.sqrt(
            weights[f"primary.{norm}.running_var"] + 1e-5
        )
        x = x * weights[f"primary.{norm}.weight"] + weights[f"primary.{norm}.bias"]
    return softmax(weights["primary.8.weight"] @ x + weights["primary.8.bias"])


def head_reference(head: ReliabilityBalancing, e: Array, delta: float) -> dict[str, Array | float]:
    """Compute everything the head says of one embedding (D,), one sample at a time."""
    weights = {name: tensor.numpy() for name, tensor in head.state_dict().items()}
    anchors = weights["anchor_correction.anchors"]
    classes, per_class, _ = anchors.shape
    distances = np.empty((classes, per_class))
    for c, j in itertools.product(range(classes), range(per_class)):
        distances[c, j] = math.sqrt(max(sum((e - anchors[c, j]) ** 2), 1e-12))
    by_anchor = softmax(-distances.ravel() / delta).reshape(classes, per_class).sum(axis=1)
    logits = weights["attentive_correction.value.weight"] @ e + weights["attentive_correction.value.bias"]
    by_attention = softmax(logits).reshape(classes, -1).sum(axis=1)
    primary = primary_reference(weights, e)
    correction, anchor_weight = combine(by_anchor, by_attention)
    probabilities, correction_weight = combine(correction, primary)
    return {
        "probabilities": probabilities,
        "primary": primary,
        "embedding": e,
        "correction_weight": correction_weight,
        "anchor_weight": anchor_weight,
        "distances": distances,
        "by_anchor": by_anchor,
    }


def make_head(
    seed: int, classes: int = 5, anchors: int = 3, delta: float = 1.0, slots: int = 4, scale: float = 1.0
) -> ReliabilityBalancing:
    """Build a float64 head in eval mode whose every tensor, running statistics included, is random."""
    options = BalancingOptions(anchors=anchors, delta=delta, slots=slots)
    head = ReliabilityBalancing(DIM, classes, options).double().eval()
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in head.state_dict().items():
        if tensor.is_floating_point():
            values = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(0.5 + values.square() if name.endswith("running_var") else scale * values)
    return head


def random_embeddings(seed: int, count: int, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1000 + seed)
    return scale * torch.randn(count, DIM, generator=generator, dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    classes=st.integers(2, 8),
    anchors=st.integers(1, 10),
    slots=st.integers(1, 6),
    delta=st.floats(0.2, 10.0),
    scale=st.floats(0.01, 5.0),
)
def test_the_head_agrees_with_numpy(
    seed: int, classes: int, anchors: int, slots: int, delta: float, scale: float
) -> None:
    head = make_head(seed, classes, anchors, delta, slots, scale)
    embeddings = random_embeddings(seed, 3, scale)
    with torch.inference_mode():
        output = head(embeddings)
    for row, e in enumerate(embeddings.numpy()):
        for name, expected in head_reference(head, e, delta).items():
            got = getattr(output, name)[row].numpy()
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6, err_msg=name)
    for distribution in (output.probabilities, output.primary):
        torch.testing.assert_close(distribution.sum(dim=-1), torch.ones(3).double(), rtol=0, atol=1e-12)
        assert float(distribution.min()) >= 0.0


def test_single_precision_follows_double_precision() -> None:
    head, embeddings = make_head(1), random_embeddings(1, 16)
    with torch.inference_mode():
        exact = head(embeddings)
        single = head.float()(embeddings.float())
    for name in exact._fields:
        torch.testing.assert_close(
            getattr(single, name), getattr(exact, name).float(), rtol=1e-4, atol=1e-5, msg=name
        )


def test_the_head_s_gradient_is_that_of_its_formulas() -> None:
    head = make_head(2, classes=3, anchors=2, slots=2)
    embeddings = random_embeddings(2, 2).requires_grad_()
    anchors = head.anchor_correction.anchors

    def probabilities(e: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(head, {"anchor_correction.anchors": a}, (e,)).probabilities

    assert torch.autograd.gradcheck(probabilities, (embeddings, anchors), atol=1e-6)


def test_the_corrections_take_part_in_every_gradient() -> None:
    head = make_head(3).train()
    head(random_embeddings(3, 8)).probabilities[:, 0].log().sum().backward()
    dead = [name for name, p in head.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


@pytest.mark.parametrize("classes", [2, 7, 8])
def test_confidence_is_one_for_certainty_and_nought_for_ignorance(classes: int) -> None:
    one_hot = torch.eye(classes).double()
    uniform = torch.full((1, classes), 1 / classes).double()
    torch.testing.assert_close(confidence(one_hot), torch.ones(classes).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(confidence(uniform), torch.zeros(1).double(), rtol=0, atol=1e-7)


@given(values=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=8).filter(lambda v: sum(v) > 1e-3))
def test_confidence_agrees_with_numpy(values: list[float]) -> None:
    p = np.array(values) / sum(values)
    got = float(confidence(torch.from_numpy(p[None]))[0])
    assert 0.0 <= got <= 1.0
    assert got == pytest.approx(certainty(p), abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("first", "second", "share"),
    [(0.0, 0.0, 0.5), (1e-8, 0.0, 0.5), (0.3, 0.1, 0.75), (1.0, 0.0, 1.0), (0.0, 1.0, 0.0)],
)
def test_shares_are_equal_where_both_confidences_vanish(
    first: float, second: float, share: float, dtype: torch.dtype
) -> None:
    a = torch.tensor([first], dtype=dtype, requires_grad=True)
    b = torch.tensor([second], dtype=dtype, requires_grad=True)
    weight = first_weight(a, b)
    assert float(weight.detach()) == pytest.approx(share, abs=1e-6)
    weight.sum().backward()
    assert torch.isfinite(a.grad).all() and torch.isfinite(b.grad).all()


def test_mix_weighs_rows() -> None:
    first, second = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    assert mix(first, second, torch.tensor([1.0, 0.25])).tolist() == [[1.0, 0.0], [0.25, 0.75]]


def check_finite(head: ReliabilityBalancing, embeddings: torch.Tensor) -> torch.Tensor:
    """Return the probabilities after checking every output and every gradient for finite numbers."""
    embeddings = embeddings.clone().requires_grad_()
    output = head(embeddings)
    loss = -output.probabilities.clamp_min(1e-12).log()[:, 0].mean() + output.distances.square().mean()
    loss.backward()
    for name, value in zip(output._fields, output, strict=True):
        assert torch.isfinite(value).all(), name
    for name, parameter in [*head.named_parameters(), ("embedding", embeddings)]:
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
    torch.testing.assert_close(output.probabilities.sum(dim=-1), torch.ones_like(embeddings[:, 0]))
    return output.probabilities.detach()


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("primary", ["uniform", "one-hot"])
@pytest.mark.parametrize("anchors", ["uniform", "one-hot"])
@pytest.mark.parametrize("attention", ["uniform", "one-hot"])
def test_uniform_and_certain_distributions_stay_finite(
    primary: str, anchors: str, attention: str, double: bool
) -> None:
    head = make_head(4)
    embeddings = random_embeddings(4, 3)
    with torch.no_grad():
        for layer, kind in ((head.primary[-1], primary), (head.attentive_correction.value, attention)):
            layer.weight.zero_()
            layer.bias.zero_()
            layer.bias[0] = 1e5 if kind == "one-hot" else 0.0
        placed = head.anchor_correction.anchors
        placed.zero_()
        placed[1:] += 1e5 if anchors == "one-hot" else 0.0
    if not double:
        head, embeddings = head.float(), embeddings.float()
    probabilities = check_finite(head, embeddings)
    if (primary, anchors, attention) == ("uniform",) * 3:
        torch.testing.assert_close(probabilities, torch.full_like(probabilities, 0.2), rtol=0, atol=1e-6)
    else:  # whatever is certain is certain of class 0, and the uniform ones have no say
        torch.testing.assert_close(
            probabilities[:, 0], torch.ones_like(probabilities[:, 0]), rtol=0, atol=1e-5
        )


def test_an_embedding_on_an_anchor_has_a_finite_gradient() -> None:
    head = make_head(5)
    embeddings = head.anchor_correction.anchors.detach()[2, :2].clone()
    check_finite(head, embeddings)
    distances = head.anchor_correction(embeddings)[1]
    torch.testing.assert_close(distances[:, 2].diagonal(), torch.full((2,), 1e-6).double())


def test_far_away_embeddings_stay_finite() -> None:
    check_finite(make_head(6).float(), random_embeddings(6, 4, scale=1e4).float())


def test_rows_do_not_see_each_other() -> None:
    head, embeddings = make_head(7), random_embeddings(7, 5)
    with torch.inference_mode():
        together = head(embeddings)
        for row in range(5):
            alone = head(embeddings[row : row + 1])
            for name in alone._fields:
                got, expected = getattr(together, name)[row : row + 1], getattr(alone, name)
                torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_the_attentive_module_has_the_published_size() -> None:
    """Systems 1.5: Table 2 leaves 90,000 to 110,000 parameters for query, key and value of the module.

    The value projection is the third of it that can learn.
    """
    head = ReliabilityBalancing(768, 8, BalancingOptions())
    value = sum(p.numel() for p in head.attentive_correction.parameters())
    assert 90_000 <= 3 * value <= 110_000
    assert head.anchor_correction.anchors.numel() == 61_440
    primary = sum(p.numel() for p in head.primary.parameters())
    assert primary == 54_152


def test_a_linear_head_says_the_softmax_of_one_layer() -> None:
    head = LinearHead(DIM, 4).double()
    e = random_embeddings(8, 2)
    output = head(e)
    expected = (e @ head.linear.weight.T + head.linear.bias).softmax(dim=-1)
    torch.testing.assert_close(output.probabilities, expected)
    assert output.primary is output.probabilities and output.distances is None
    assert output.correction_weight.tolist() == output.anchor_weight.tolist() == [0.0, 0.0]


def test_a_temperature_sharpens_the_corrected_distribution_alone() -> None:
    network = build("grefel-lite-s", input_size=32).eval()
    images = torch.randn(5, 3, 32, 32)
    with torch.inference_mode():
        plain, cold = network(images), calibrated(network, 0.5)(images)
    squared = plain.probabilities.square()  # 1 / T = 2
    torch.testing.assert_close(cold.probabilities, squared / squared.sum(dim=1, keepdim=True))
    assert torch.equal(cold.primary, plain.primary)
    assert torch.equal(cold.correction_weight, plain.correction_weight)
