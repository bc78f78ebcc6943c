"""What export starts from: a trained checkpoint, or a network's name for seeded, untrained weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from edge_fer.errors import CheckpointError
from edge_fer.preprocess import CropSpec
from training.models import DEFAULTS, ExpressionNetwork, build, standardise
from training.models.checkpoint import load_checkpoint

DEFAULT_CHECKPOINT = Path(__file__).parent.parent / "training" / "weights" / "grefel-lite.safetensors"
SEED = 0
SETTLING_PICTURES = 16


@dataclass(frozen=True, slots=True)
class Source:
    """A float32 network in eval mode, how its faces are cropped, and where it came from.

    `sha256` is the checkpoint's, None for untrained weights; `weights` says licence and training data.
    """

    network: ExpressionNetwork
    crop: CropSpec
    sha256: str | None
    weights: Mapping[str, str]

    @property
    def untrained(self) -> bool:
        """True for seeded weights that nobody trained."""
        return self.sha256 is None


def read_source(checkpoint: str | None) -> Source:
    """Load a checkpoint, the committed one when None, or build a network by name.

    Raises:
        CheckpointError: there is no such file or network, or the file is damaged or foreign.
    """
    if checkpoint in DEFAULTS:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            network = settled(build(str(checkpoint)))
        crop = CropSpec(size=network.spec.input_size, margin=0.0)
        return Source(network, crop, None, {"training_data": "none: seeded, untrained weights"})
    path = DEFAULT_CHECKPOINT if checkpoint is None else Path(checkpoint)
    if not path.is_file():
        names = ", ".join(sorted(DEFAULTS))
        raise CheckpointError(
            f"{path}: expected a checkpoint file or a network's name ({names}), found neither"
        )
    loaded = load_checkpoint(path)
    size = loaded.network.spec.input_size
    if loaded.crop.size != size:
        raise CheckpointError(
            f"{path}: expected crops of {size} pixels as its network takes, the checkpoint says "
            f"{loaded.crop.size}; train it again"
        )
    weights = loaded.info.get("weights")
    texts = {str(k): str(v) for k, v in weights.items()} if isinstance(weights, Mapping) else {}
    return Source(loaded.network, loaded.crop, loaded.sha256, texts)


def settled(network: ExpressionNetwork) -> ExpressionNetwork:
    """Return an untrained network in eval mode, its BatchNorms with the statistics of random smooth pictures.

    With means of 0 and variances of 1 deep networks answer every face alike: a graph would agree with them
    whatever it computed.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    size = network.spec.input_size
    pictures = functional.interpolate(torch.rand(SETTLING_PICTURES, 3, 7, 7), (size, size), mode="bilinear")
    with torch.no_grad():
        network.train()(standardise(pictures, network))
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    return network.eval()
