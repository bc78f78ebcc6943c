"""Rows of the training set into the tensors of a batch: crops, augmentation, targets, mixing, teachers."""

from __future__ import annotations

import torch
from lightning.fabric import Fabric

from training.data.augment import Mixing, build_augmentation, draw_mixing
from training.data.faces import FaceTensors
from training.data.targets import target_distribution
from training.methods.distillation import Lessons
from training.recipe import Recipe


class BatchMaker:
    """Makes batches of the training faces on the training device."""

    def __init__(self, recipe: Recipe, faces: FaceTensors, neighbours: int, fabric: Fabric) -> None:
        self.recipe, self.faces, self.device = recipe, faces, fabric.device
        self.augmentation = build_augmentation(recipe.augment).to(self.device)
        self.neighbours = neighbours
        self.lessons: Lessons | None = None

    def make(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the fields of a `training.methods.method.Batch` of the faces (B,), and `taught` (B, E)."""
        mixup = self.recipe.augment.mixup
        faces = self.augment(rows)
        mixing = draw_mixing(len(rows), mixup, self.device) if mixup else None
        tensors = {
            "faces": faces if mixing is None else mixing(faces),
            "labels": self.faces.labels[rows].to(self.device),
            "targets": self.targets(rows, mixing),
            "rows": rows.to(self.device),
        }
        if self.lessons is not None and self.recipe.distillation.embedding:
            taught = self.lessons.embeddings[rows].to(self.device)
            tensors["taught"] = taught if mixing is None else mixing(taught)
        return tensors

    def augment(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the augmented faces (B, 3, S, S) in 0..1."""
        crops = self.faces.crops[rows].to(self.device)
        faces: torch.Tensor = self.augmentation(crops.permute(0, 3, 1, 2).float() / 255.0)
        return faces.clamp(0.0, 1.0)

    def targets(self, rows: torch.Tensor, mixing: Mixing | None) -> torch.Tensor:
        """Return the targets (B, N): votes or labels, the teachers' share, and the partners'."""
        data, votes = self.recipe.data, self.faces.votes
        target = target_distribution(
            self.faces.labels[rows],
            votes[rows] if votes is not None and data.votes else None,
            self.recipe.network.classes,
            data.min_votes,
        ).to(self.device)
        if self.lessons is not None:
            target = target.lerp(
                self.lessons.probabilities[rows].to(self.device), self.recipe.distillation.share
            )
        return target if mixing is None else mixing(target)
