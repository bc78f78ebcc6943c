"""Reference outputs: what the float32 PyTorch network answers, the yardstick of every gate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from edge_fer.engines.base import Outputs
from edge_fer.errors import CheckpointError
from edge_fer.faces import FaceSet, face_hash, label_numbers
from edge_fer.samples import Reference
from export.wrapper import FusedGraph
from training.models import ExpressionNetwork

BATCH = 64
TorchOutputs = Callable[[NDArray[np.uint8]], Outputs]


class TorchAnswers:
    """Runs the fused module in PyTorch, float32, eval mode: crops (N, S, S, 3) uint8 to `Outputs`."""

    def __init__(self, network: ExpressionNetwork, progress: Callable[[int], None] | None = None) -> None:
        self.fused = FusedGraph(network).eval()
        self.progress = progress

    @torch.inference_mode()
    def __call__(self, crops: NDArray[np.uint8]) -> Outputs:
        """Answer every crop.

        Raises:
            CheckpointError: an answer is no number.
        """
        parts: list[list[NDArray[np.float32]]] = []
        for start in range(0, len(crops), BATCH):
            batch = torch.from_numpy(crops[start : start + BATCH])
            parts.append([output.numpy() for output in self.fused(batch)])
            if self.progress is not None:
                self.progress(start + len(batch))
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        if not all(np.isfinite(column).all() for column in columns):
            raise CheckpointError(
                "the float network's answers are not finite: its weights are damaged or its training "
                "diverged; take another checkpoint"
            )
        return Outputs(*columns)


def make_reference(
    faces: FaceSet, crops: NDArray[np.uint8], answer: TorchOutputs, labels: tuple[str, ...]
) -> Reference:
    """Answer the parity set and keep the answers with the faces' labels and hashes, without their pixels.

    A label the network does not have counts as none.
    """
    outputs = answer(crops)
    return Reference(
        labels=label_numbers(faces, labels).astype(np.int16),
        hashes=np.array([face_hash(crop) for crop in crops], dtype="<U64"),
        probabilities=outputs.probabilities,
        primary=outputs.primary,
        reliability=outputs.reliability,
        name=faces.name,
        names=labels,
        embedding=outputs.embedding,
    )
