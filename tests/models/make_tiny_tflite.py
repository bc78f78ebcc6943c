"""Make tiny.tflite; `python tests/models/make_tiny_tflite.py` writes it beside itself.

The same small computation as tiny.onnx (16 pixels, 8 classes), converted from PyTorch: tests/conftest.py
computes its answers without an engine.
"""

from __future__ import annotations

import math
from pathlib import Path

import litert_torch
import torch
from torch import nn

SIZE = 16
CLASSES = 8
FEATURES = 4 * 3


class Tiny(nn.Module):
    """The mean colours of four quarters, one linear layer, two softmaxes."""

    def __init__(self) -> None:
        super().__init__()
        rule = torch.arange(FEATURES * CLASSES, dtype=torch.float64).reshape(FEATURES, CLASSES)
        self.register_buffer("weight", (4 * torch.sin(1 + rule * rule)).float().T.contiguous())

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map uint8 (1, 16, 16, 3) to the three outputs of the contract."""
        scaled = image.float() * (1 / 255)
        half = SIZE // 2
        quarters = [
            scaled[:, row : row + half, column : column + half].mean(dim=(1, 2))
            for row in (0, half)
            for column in (0, half)
        ]
        features = torch.stack(quarters, dim=2).reshape(1, FEATURES)  # planes first, as in tiny.onnx
        logits = nn.functional.linear(features, self.weight)
        probabilities = logits.softmax(dim=1)
        negative_entropy = (probabilities * probabilities.clamp_min(1e-12).log()).sum(dim=1)
        return {
            "probabilities": probabilities,
            "primary": (logits * 0.5).softmax(dim=1),
            "reliability": negative_entropy / math.log(CLASSES) + 1,
        }


def tiny() -> bytes:
    """Return the graph."""
    image = torch.zeros(1, SIZE, SIZE, 3, dtype=torch.uint8)
    return bytes(litert_torch.convert(Tiny().eval(), sample_kwargs={"image": image}).model_content())


if __name__ == "__main__":
    (Path(__file__).parent / "tiny.tflite").write_bytes(tiny())
