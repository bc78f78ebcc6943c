"""The recognition MobileFaceNet as encoder: a second implementation, and runs that start from its weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from edge_fer.errors import CheckpointError
from edge_fer.preprocess import CropSpec
from tests.training.grefel_reference import weight_by_rule
from tests.training.tiny_run import tiny_run
from training.models import build
from training.models.checkpoint import load_checkpoint, save_checkpoint
from training.models.recognition import RecognitionEncoder, load_recognition
from training.session import train_run

# Stride and whether the input is added, of the fifteen blocks in the published order.
BLOCKS = [(2, False), *[(1, True)] * 4, (2, False), *[(1, True)] * 6, (2, False), *[(1, True)] * 2]


def weights(seed: int) -> dict[str, torch.Tensor]:
    """Return tensors under the names of the recognition network, its unused parts among them."""
    torch.manual_seed(seed)
    encoder = RecognitionEncoder(input_size=32)
    own = {name: weight_by_rule(name, tensor) for name, tensor in encoder.state_dict().items()}
    named = {name: tensor for name, tensor in own.items() if not name.startswith("norm.")}
    rest = {
        "gdconv.depthwise.weight": torch.ones(512, 1, 7, 7),
        "conv3.bias": torch.ones(128),
        "bn.weight": torch.ones(128),
    }
    return {**named, **rest}


def reference(w: dict[str, torch.Tensor], gray: torch.Tensor) -> torch.Tensor:
    """Compute the 512-channel map's mean of gray faces (B, 1, S, S) from the tensors' names alone."""

    def conv(x: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        kernel = w[f"{name}.weight"]
        groups = x.shape[1] // kernel.shape[1]
        return functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2, groups=groups)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, variance = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        scale = w[f"{name}.weight"] / (variance + 1e-5).sqrt()
        return (x - mean[:, None, None]) * scale[:, None, None] + w[f"{name}.bias"][:, None, None]

    def relu6(x: torch.Tensor) -> torch.Tensor:
        return x.clamp(0.0, 6.0)

    x = relu6(norm(conv(gray.repeat(1, 3, 1, 1), "conv1.0", 2), "conv1.1"))
    x = norm(conv(x, "dw_conv.depthwise"), "dw_conv.bn1").clamp_min(0.0)
    x = norm(conv(x, "dw_conv.pointwise"), "dw_conv.bn2").clamp_min(0.0)
    for number, (stride, added) in enumerate(BLOCKS):
        block = f"features.{number}.conv"
        y = relu6(norm(conv(x, f"{block}.0.0"), f"{block}.0.1"))
        y = relu6(norm(conv(y, f"{block}.1.0", stride), f"{block}.1.1"))
        y = norm(conv(y, f"{block}.2"), f"{block}.3")
        x = x + y if added else y
    return relu6(norm(conv(x, "conv2.0"), "conv2.1")).mean(dim=(2, 3))


def test_the_encoder_is_the_recognition_network() -> None:
    given = weights(1)
    encoder = RecognitionEncoder(input_size=64)
    load_recognition(encoder, given, Path("weights"))
    encoder.double().eval()
    image = 30.0 * torch.randn(2, 3, 64, 64, dtype=torch.float64)  # beyond the 6 of ReLU6
    luma = 0.299 * image[:, :1] + 0.587 * image[:, 1:2] + 0.114 * image[:, 2:]
    with torch.inference_mode():
        expected = reference({name: tensor.double() for name, tensor in given.items()}, luma)
        # The closing norm is fresh: mean 0 and variance 1, but for its epsilon.
        got = encoder(image) * (1.0 + 1e-5) ** 0.5
    assert float(expected.std()) > 0.05 and float((expected > 0).double().mean()) > 0.2
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-7)


def test_other_tensors_are_refused() -> None:
    given = weights(1)
    encoder = RecognitionEncoder(input_size=32)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    missing = {name: tensor for name, tensor in given.items() if name != "conv2.0.weight"}
    wrong = {**given, "conv1.0.weight": torch.zeros(64, 1, 3, 3)}
    for tensors in (missing, wrong, {**given, "prelu.weight": torch.zeros(1)}):
        with pytest.raises(CheckpointError, match="expected the tensors of the recognition MobileFaceNet"):
            load_recognition(encoder, tensors, Path("weights"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def run(folder: Path, data: Path, start: Path) -> Path:
    """Train one epoch at a rate that moves nothing; return the last checkpoint."""
    still = {"epochs": 1, "learning_rate": 1e-30, "weight_decay": 0.0}
    asked = tiny_run(folder, data, network={"model": "mobilefacenet"}, optimiser=still)
    train_run(replace(asked, start=start))
    return asked.output / "last.safetensors"


def test_a_run_starts_from_recognition_weights(tmp_path: Path, noise_data: Path) -> None:
    given = weights(2)
    save_file(given, tmp_path / "face.safetensors")
    last = load_checkpoint(run(tmp_path, noise_data, tmp_path / "face.safetensors"))
    for name, tensor in last.network.encoder.named_parameters():
        if not name.startswith("norm."):
            torch.testing.assert_close(tensor, given[name], rtol=1e-6, atol=1e-7, msg=name)
    assert last.info["start"] is not None


def test_a_run_starts_from_its_own_checkpoint_too(tmp_path: Path, noise_data: Path) -> None:
    network = build("mobilefacenet", classes=3, input_size=32)
    save_checkpoint(tmp_path / "own.safetensors", network, CropSpec(size=32, margin=0.0), {})
    last = load_checkpoint(run(tmp_path, noise_data, tmp_path / "own.safetensors"))
    name = "encoder.conv1.0.weight"
    torch.testing.assert_close(
        last.network.state_dict()[name], network.state_dict()[name], rtol=1e-6, atol=1e-7
    )
