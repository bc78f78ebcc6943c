"""The heads of other methods, each against its definition, and what network they fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d

from edge_fer.preprocess import CropSpec
from tests.training.counting import count
from training.models import HEADS, build, calibrated
from training.models.checkpoint import load_checkpoint, save_checkpoint
from training.models.heads import CrossAttentionHead, DanHead, MapVector, RulHead, ScaledHead


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def stir(module: torch.nn.Module, seed: int) -> None:
    """Give every parameter and running statistic a drawn value, and switch to float64 and eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                drawn = torch.randn(value.shape, generator=generator)
                value.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else drawn)
    module.double().eval()


def norm(values: np.ndarray, layer: torch.nn.Module, axis: int = 1) -> np.ndarray:
    """BatchNorm in eval mode, written out."""
    shape = [1] * values.ndim
    shape[axis] = -1
    mean, variance = (getattr(layer, f"running_{key}").numpy().reshape(shape) for key in ("mean", "var"))
    result = (values - mean) / np.sqrt(variance + layer.eps)
    if layer.affine:
        weight, bias = (getattr(layer, key).detach().numpy().reshape(shape) for key in ("weight", "bias"))
        result = result * weight + bias
    return result


def linear(values: np.ndarray, layer: torch.nn.Linear) -> np.ndarray:
    return values @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def test_the_scaled_head_multiplies_logits_by_importance() -> None:
    head = ScaledHead(5, 4, temperature=1.7)
    stir(head, 1)
    e = torch.randn(6, 5, dtype=torch.float64)
    got = head(e)
    alpha = 1 / (1 + np.exp(-linear(e.numpy(), head.scale)))
    logits = alpha * linear(e.numpy(), head.linear)
    np.testing.assert_allclose(head.importance(e).detach(), alpha[:, 0], rtol=1e-12)
    np.testing.assert_allclose(got.logits.detach(), logits, rtol=1e-12)
    np.testing.assert_allclose(got.probabilities.detach(), softmax(logits / 1.7), rtol=1e-10)
    assert got.primary is got.probabilities and got.embedding is e
    assert got.correction_weight.tolist() == got.anchor_weight.tolist() == [0.0] * 6
    assert got.distances is None and got.by_anchor is None


def test_rul_reads_the_mean_from_the_whole_map() -> None:
    head = RulHead(3, 2, 4, temperature=0.6)
    stir(head, 2)
    maps = torch.randn(5, 3, 2, 2, dtype=torch.float64)
    got = head(maps)
    entrance, _, _, layer, closing = head.mean
    mu = norm(linear(norm(maps.numpy(), entrance).reshape(5, 12), layer), closing)
    logits = linear(mu, head.linear)
    assert mu.shape == (5, 64)
    np.testing.assert_allclose(got.embedding.detach(), mu, rtol=1e-10)
    np.testing.assert_allclose(got.logits.detach(), logits, rtol=1e-10)
    np.testing.assert_allclose(got.probabilities.detach(), softmax(logits / 0.6), rtol=1e-9)


def test_rul_s_vector_has_the_published_layers() -> None:
    entrance, dropout, _, layer, closing = MapVector(512, 7)
    assert not entrance.affine and dropout.p == 0.4 and closing.affine
    assert (layer.in_features, layer.out_features) == (25088, 64)


def cross_attention(maps: np.ndarray, head: CrossAttentionHead) -> np.ndarray:
    """One of DAN's heads, written out."""

    def convolve(x: np.ndarray, part: torch.nn.Sequential, padding: tuple[int, int]) -> np.ndarray:
        weight, bias = part[0].weight.detach(), part[0].bias.detach()
        return norm(conv2d(torch.from_numpy(x), weight, bias, padding=padding).numpy(), part[1])

    reduced = convolve(maps, head.reduce, (0, 0))
    summed = convolve(reduced, head.square, (1, 1)) + convolve(reduced, head.row, (0, 1))
    mask = np.maximum(summed + convolve(reduced, head.column, (1, 0)), 0).sum(axis=1, keepdims=True)
    vector = (maps * mask).mean(axis=(2, 3))
    hidden = np.maximum(norm(linear(vector, head.gate[0]), head.gate[1]), 0)
    return vector / (1 + np.exp(-linear(hidden, head.gate[3])))


def test_dan_sums_four_attentions_in_log_softmax() -> None:
    head = DanHead(32, 3, 4, temperature=2.0)
    stir(head, 3)
    maps = torch.randn(5, 32, 3, 3, dtype=torch.float64) / 100
    got = head(maps)
    said = np.stack([cross_attention(maps.numpy(), one) for one in head.attentions], axis=1)
    assert said.shape == (5, 4, 32)
    attended = np.log(softmax(said.swapaxes(1, 2))).swapaxes(1, 2)
    np.testing.assert_allclose(head.attend(maps).detach(), attended, rtol=1e-9)
    np.testing.assert_allclose(np.exp(attended).sum(axis=1), 1.0, rtol=1e-12)
    logits = norm(linear(attended.sum(axis=1), head.linear), head.norm)
    np.testing.assert_allclose(got.embedding.detach(), attended.sum(axis=1), rtol=1e-9)
    np.testing.assert_allclose(got.logits.detach(), logits, rtol=1e-9)
    np.testing.assert_allclose(got.probabilities.detach(), softmax(logits / 2.0), rtol=1e-9)


def test_resnet18_under_dan_has_the_size_of_its_code() -> None:
    """19.72 million with eight classes; each attention 2,135,904."""
    with torch.device("meta"):
        network = build("resnet18", head="dan")
    assert [count(one) for one in network.head.attentions] == [2_135_904] * 4
    assert count(network) == 19_724_248


@pytest.mark.parametrize("head", HEADS)
def test_every_head_reads_what_it_takes_and_keeps_to_float32(head: str) -> None:
    torch.manual_seed(4)
    network = build("grefel-lite-s", input_size=32, head=head).eval()
    images = torch.randn(3, 3, 32, 32)
    read = []
    network.head.register_forward_pre_hook(lambda _, arguments: read.append(arguments[0]))
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        got = network(images)
    assert read[0].dtype == got.logits.dtype == torch.float32
    assert tuple(read[0].shape) == ((3, 80, 4, 4) if head in ("dan", "rul") else (3, 80))
    assert network.head.takes_map == (head in ("dan", "rul"))
    with torch.inference_mode():
        again = network.head(network.head_input(images))
        whole = network(images)
    torch.testing.assert_close(again.probabilities, whole.probabilities)
    torch.testing.assert_close(whole.probabilities.sum(dim=1), torch.ones(3))


@pytest.mark.parametrize("head", HEADS)
def test_a_checkpoint_keeps_every_head(head: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    network = calibrated(build("grefel-lite-s", input_size=32, head=head), 1.5)
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, network, CropSpec(size=32, margin=0.0), {})
    again = load_checkpoint(path).network
    images = torch.randn(2, 3, 32, 32)
    assert again.spec == network.spec
    with torch.inference_mode():
        assert torch.equal(again(images).probabilities, network(images).probabilities)


@pytest.mark.parametrize("head", ["dan", "rul"])
@pytest.mark.parametrize("name", ["grefel", "posterpp", "mobilefacenet"])
def test_a_head_that_reads_maps_needs_one(head: str, name: str) -> None:
    expected = (
        f"expected a network with a feature map under the head {head}, got {name}, whose encoder has none"
    )
    with pytest.raises(ValueError, match=expected), torch.device("meta"):
        build(name, head=head)
