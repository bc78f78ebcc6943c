"""Distillation: trained teachers' distributions in the targets, their neighbourhoods in the embeddings.

Each teacher judges every training face once, as it is and mirrored, before the first step. That costs one
pass instead of one per epoch, and the student sees its own augmentations under the teachers' calm answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from training.evaluation import normalise
from training.models import ExpressionNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillationOptions:
    """What a run takes from its teachers; both zero: there are none.

    `share` is the teachers' part of every target, the rest are the votes. `embedding` weights the matching of
    the embeddings' neighbourhoods.
    """

    share: float = 0.0
    embedding: float = 0.0

    @property
    def asked_for(self) -> bool:
        """Whether the run needs teachers."""
        return self.share > 0.0 or self.embedding > 0.0


@dataclass(frozen=True, slots=True)
class Lessons:
    """Teachers' answers on the training faces, in their order: (N, C) float32, (N, D) float32."""

    probabilities: torch.Tensor
    embeddings: torch.Tensor


@torch.no_grad()
def teach(
    teacher: ExpressionNetwork, crops: torch.Tensor, device: torch.device, batch_size: int = 256
) -> Lessons:
    """Return the teacher's answers on uint8 crops (N, S, S, 3): means over the face and its mirror image."""
    teacher = teacher.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    probabilities, embeddings = [], []
    for part in crops.split(batch_size):
        images = normalise(part.to(device), teacher).contiguous(memory_format=torch.channels_last)
        views = [teacher(view) for view in (images, images.flip(-1))]
        probabilities.append(torch.stack([view.probabilities for view in views]).mean(dim=0).cpu())
        embeddings.append(torch.stack([view.embedding for view in views]).mean(dim=0).cpu())
    return Lessons(torch.cat(probabilities), torch.cat(embeddings))


def agree(answers: Sequence[Lessons]) -> Lessons:
    """Return several teachers' answers as one: mean distributions, embeddings side by side, equally long."""
    probabilities = torch.stack([one.probabilities for one in answers]).mean(dim=0)
    embeddings = [one.embeddings / one.embeddings.norm(dim=1).mean() for one in answers]
    return Lessons(probabilities, torch.cat(embeddings, dim=1))


def neighbourhoods(embeddings: torch.Tensor) -> torch.Tensor:
    """Return the (B, B) inner products of a batch's embeddings (B, D), every row scaled to length 1."""
    return torch.nn.functional.normalize(embeddings @ embeddings.T, dim=1)


def embedding_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the mean over the batch of the squared distance between both networks' neighbourhoods.

    Similarity-preserving knowledge distillation (Tung and Mori, ICCV 2019, Eq. 4, times B): the widths of the
    two embeddings may differ, and nothing has to be learnt in between.

    Args:
        student: (B, D). teacher: (B, E).
    """
    difference = neighbourhoods(student) - neighbourhoods(teacher)
    return difference.square().sum() / len(student)
