"""Network and method as one module, so that wrapping it once for many processes covers every parameter."""

from __future__ import annotations

import torch
from torch import nn

from edge_fer.errors import TrainingError
from training.methods.distillation import embedding_loss
from training.methods.method import Batch, Method, Moment, Neighbours, Terms
from training.models import ExpressionNetwork, HeadOutput


class Parcel:
    """The tensors of a batch, which wrappers leave as they are: bfloat16 would round the targets."""

    __slots__ = ("tensors",)

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors = tensors


class Learner(nn.Module):
    """What is trained: the loss of a method on a network, and what teachers add to it.

    `moment` is set before every step. The embeddings are matched in the first thing the method asks the head,
    which is the batch as it is.
    """

    def __init__(self, network: ExpressionNetwork, method: Method, embedding_weight: float) -> None:
        super().__init__()
        self.network = network
        self.method = method
        self.embedding_weight = embedding_weight
        self.moment = Moment(epoch=0, epochs=1, step=0, steps=1)

    def forward(self, parcel: Parcel) -> Terms:
        """Return the loss terms of the fields of a Batch, its neighbours' and `taught` (B, E)."""
        tensors = parcel.tensors
        batch = assemble(tensors)
        if "taught" not in tensors:
            return self.method(self.network, batch, self.moment)  # type: ignore[no-any-return]
        said: list[HeadOutput] = []
        hook = self.network.head.register_forward_hook(lambda *call: said.append(call[-1]))
        terms = self.method(self.network, batch, self.moment)
        hook.remove()
        if not said:
            raise TrainingError(
                f"expected distillation.embedding = 0 with {self.method.name}, which has no single embedding"
            )
        matched = embedding_loss(said[0].embedding.float(), tensors["taught"])
        return {**terms, "total": terms["total"] + self.embedding_weight * matched, "embedding": matched}


def assemble(tensors: dict[str, torch.Tensor]) -> Batch:
    """Return the batch that `tensors` hold."""
    neighbours = None
    if "neighbour_faces" in tensors:
        neighbours = Neighbours(
            faces=tensors["neighbour_faces"],
            labels=tensors["neighbour_labels"],
            rows=tensors["neighbour_rows"],
            similarity=tensors["similarity"],
        )
    return Batch(
        faces=tensors["faces"],
        labels=tensors["labels"],
        targets=tensors["targets"],
        rows=tensors["rows"],
        neighbours=neighbours,
    )
