"""What a network answers to every face, as arrays; no figure is made here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edge_fer.errors import TrainingError
from training.devices import ran_out_of_memory
from training.evaluation import normalise
from training.models import ExpressionNetwork
from training.models.balancing import HeadOutput, confidence

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """A network's outputs for N faces of C classes.

    Attributes:
        probabilities: (N, C) float32, corrected and calibrated.
        primary: (N, C) float32, before balancing; without a balancing head equal to `probabilities`.
        reliability: (N,) float32, 1 - normalised entropy of `probabilities`.
        primary_reliability: (N,) float32, the same of `primary`.
        embedding: (N, D) float32.
        correction_weight: (N,) float32, how much of the answer is correction.
        anchor_weight: (N,) float32, how much of the correction is the anchors'.
        nearest: (N,) int64, the nearest of all anchors, c * K + k; None without anchors.
    """

    probabilities: Floats
    primary: Floats
    reliability: Floats
    primary_reliability: Floats
    embedding: Floats
    correction_weight: Floats
    anchor_weight: Floats
    nearest: NDArray[np.int64] | None


def answer(
    network: ExpressionNetwork,
    crops: torch.Tensor,
    device: torch.device,
    batch: int,
    progress: Callable[[int], None] | None = None,
) -> Answers:
    """Run the network in eval mode over uint8 crops (N, S, S, 3).

    Raises:
        TrainingError: it answers with something that is not a number, or the batch does not fit.
    """
    network.eval().to(device)
    parts: list[dict[str, NDArray]] = []
    with torch.inference_mode():
        for start in range(0, len(crops), batch):
            try:
                images = normalise(crops[start : start + batch].to(device), network)
                parts.append(_columns(network(images)))
            except RuntimeError as error:
                if not ran_out_of_memory(error):
                    raise
                raise TrainingError(
                    f"there is no memory for {batch} faces at once; give a smaller --batch"
                ) from error
            if progress is not None:
                progress(min(start + batch, len(crops)))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    broken = sum(not np.isfinite(row).all() for row in joined["probabilities"])
    if broken:
        raise TrainingError(
            f"expected probabilities, got values that are no numbers for {broken} of {len(crops)} faces; "
            "the weights of this checkpoint are broken"
        )
    return Answers(nearest=joined.pop("nearest", None), **joined)


def _columns(output: HeadOutput) -> dict[str, NDArray]:
    tensors = {
        "probabilities": output.probabilities,
        "primary": output.primary,
        "reliability": confidence(output.probabilities),
        "primary_reliability": confidence(output.primary),
        "embedding": output.embedding.float(),
        "correction_weight": output.correction_weight,
        "anchor_weight": output.anchor_weight,
    }
    if output.distances is not None:
        tensors["nearest"] = output.distances.flatten(1).argmin(dim=1)
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
