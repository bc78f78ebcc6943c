"""mobilefacenet: a face-recognition MobileFaceNet as encoder, for a teacher that starts from such weights.

The structure is the one of the Apache-2.0 weights trained on MS-Celeb-1M (MobileNetV2 blocks with ReLU6), and
so are the names of its parts: their file loads by name. What follows the last 1x1 convolution there (global
depthwise convolution and identity embedding) is not built; the embedding here is the mean over the map.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from edge_fer.errors import CheckpointError
from training.models.grefel_lite import LUMA
from training.models.layers import initialise_convolutions
from training.models.mobilenet import ConvNormReLU6, InvertedResidual

# expansion, channels, blocks, stride of the first
STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
EMBEDDING = 512
# Parts of the recognition network behind the map that expressions are read from.
UNUSED = ("gdconv.", "conv3.", "bn.")


class SeparableConv(nn.Module):
    """Depthwise 3x3 and 1x1 convolution, each with BatchNorm and ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to the same shape."""
        x = torch.relu(self.bn1(self.depthwise(x)))
        return torch.relu(self.bn2(self.pointwise(x)))


class RecognitionEncoder(nn.Module):
    """The recognition network up to its last map, on luma: faces (B, 3, S, S) to the embedding (B, 512).

    It learnt from RGB, but what it is trained on further is gray: all three channels get the luma. The
    closing BatchNorm puts the embedding on a known scale, as in `LiteEncoder`.
    """

    luma: torch.Tensor

    def __init__(self, *, input_size: int) -> None:
        super().__init__()
        self.input_size = input_size
        self.embedding_dim = EMBEDDING
        self.register_buffer("luma", torch.tensor(LUMA).reshape(1, 3, 1, 1), persistent=False)
        self.conv1 = ConvNormReLU6(3, 64, 3, stride=2)
        self.dw_conv = SeparableConv(64)
        blocks = []
        channels_in = 64
        for expansion, channels, count, stride in STAGES:
            for number in range(count):
                blocks.append(
                    InvertedResidual(channels_in, channels, stride if number == 0 else 1, expansion)
                )
                channels_in = channels
        self.features = nn.Sequential(*blocks)
        self.conv2 = ConvNormReLU6(channels_in, EMBEDDING, 1)
        self.norm = nn.BatchNorm1d(EMBEDDING)
        initialise_convolutions(self)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map normalised faces (B, 3, S, S) to embeddings (B, 512)."""
        gray = (image * self.luma).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1)
        maps = self.conv2(self.features(self.dw_conv(self.conv1(gray))))
        return self.norm(maps.mean(dim=(2, 3)))


def load_recognition(encoder: RecognitionEncoder, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Copy the recognition network's weights into the encoder; its closing norm stays as it is.

    Raises:
        CheckpointError: the tensors are not those of this network.
    """
    own = {name: tensor for name, tensor in encoder.state_dict().items() if not name.startswith("norm.")}
    given = {name: tensor for name, tensor in tensors.items() if not name.startswith(UNUSED)}
    if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in given.items()}:
        raise CheckpointError(
            f"{path}: expected the tensors of the recognition MobileFaceNet (conv1, dw_conv, features, "
            "conv2), got others; give its safetensors file or a checkpoint of `python cli.py train`"
        )
    encoder.load_state_dict(given, strict=False)
