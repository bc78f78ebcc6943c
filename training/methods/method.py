"""What a way of training is: what it needs of a batch, its loss, and the heads its network may infer with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from training.evaluation import Evaluation
from training.models import ExpressionNetwork, HeadOutput, standardise

Terms = dict[str, torch.Tensor]
Rule = tuple[str, object, str, bool]  # name, value, what is expected of it, whether it holds
Embed = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """What a method may know of the M training faces before the first step; N is the number of classes.

    Attributes:
        labels: (M,) int64.
        classes: N.
    """

    labels: torch.Tensor
    classes: int

    def counts(self) -> torch.Tensor:
        """Return how many faces each class has, (N,) float32."""
        return torch.bincount(self.labels, minlength=self.classes).float()


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """The K faces nearest to each face of a batch in valence and arousal.

    Attributes:
        faces: (B, K, 3, S, S) float32 in 0..1, RGB, augmented but for what only the centre gets.
        labels: (B, K) int64.
        rows: (B, K) int64, which of the training faces these are.
        similarity: (B, K) float32, s_ik in 0..1.
    """

    faces: torch.Tensor
    labels: torch.Tensor
    rows: torch.Tensor
    similarity: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """B training faces, augmented, on the training device.

    Attributes:
        faces: (B, 3, S, S) float32 in 0..1, RGB; `training.models.standardise` makes them a network's input.
        labels: (B,) int64.
        targets: (B, N) float32 distributions: the votes where there are some, else one-hot labels; with
            teachers their answers are in it, with mixing the partner's too. Smoothing is the method's own.
        rows: (B,) int64, which of the training faces these are.
        neighbours: where the method asks for some.
    """

    faces: torch.Tensor
    labels: torch.Tensor
    targets: torch.Tensor
    rows: torch.Tensor
    neighbours: Neighbours | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Where a run stands: the running epoch and step, counted from 0, of how many.

    Attributes:
        seed: of the run.
        pretrained: whether it began with trained weights.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    seed: int = 0
    pretrained: bool = False


class Method(nn.Module):
    """One way to train, with the parameters it needs beside the network's.

    Its parameters are trained by the run's optimiser, its parameters and buffers are saved with the run's
    state, and none of them are in a checkpoint: what infers is the network alone.

    Attributes:
        heads: the heads it can train, its own choice first.
        name: how recipes call it.
        neighbours: K, how many neighbours of every face it needs.
        squared_similarity: whether their similarity is of the squared distance instead of the absolute one.
        labels_alone: whether its loss takes labels and not the targets, in which teachers have their share.
    """

    name: ClassVar[str]
    heads: ClassVar[tuple[str, ...]] = ("linear",)
    labels_alone: ClassVar[bool] = False
    neighbours: int = 0
    squared_similarity: bool = False

    def __init__(self, options: Any, network: ExpressionNetwork, faces: TrainingSet) -> None:
        """Prepare to train `network` on `faces`; `options` is the method's own frozen dataclass.

        The network has the weights that the run begins with, a checkpoint's where there is one.

        Raises:
            TrainingError: the network or the faces lack what the method needs (a feature map, a class).
        """
        super().__init__()

    def see(self, network: ExpressionNetwork, faces: torch.Tensor) -> HeadOutput:
        """Return what the network says of faces (B, 3, S, S) in 0..1."""
        return network(standardise(faces, network))  # type: ignore[no-any-return]

    def begin_epoch(
        self, network: ExpressionNetwork, rows: torch.Tensor, embed: Embed, moment: Moment
    ) -> bool:
        """Prepare an epoch, by default nothing; return whether the network's weights were changed.

        Args:
            rows: the epoch's order of the training faces.
            embed: returns the embeddings (R, D) of training faces (R,), in eval mode and not augmented.
        """
        return False

    def forward(self, network: ExpressionNetwork, batch: Batch, moment: Moment) -> Terms:
        """Return the loss terms of a batch, scalars of the same names at every step; `total` is minimised."""
        raise NotImplementedError

    def own_parameters(self) -> list[nn.Parameter]:
        """Return those of its parameters that `after_step` updates and the run's optimiser leaves alone."""
        return []

    def after_step(self, network: ExpressionNetwork, batch: Batch) -> None:
        """Update what the optimiser does not, while the step's gradients are there; by default nothing."""

    def needs_whole_batches(self) -> bool:
        """Return whether `after_step` uses what the last forward pass saw, which is then the whole batch."""
        return False

    def warnings(self, figures: Evaluation, network: ExpressionNetwork, epoch: int) -> list[str]:
        """Say what of an epoch's validation figures looks wrong for this method; by default nothing."""
        return []
