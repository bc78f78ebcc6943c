"""Rows of the training set into the tensors of a batch; and which batches cannot be made."""

from __future__ import annotations

from dataclasses import replace

import torch
from lightning.fabric import Fabric

from edge_fer.errors import TrainingError
from training.data.augment import Mixing, build_augmentation, draw_mixing
from training.data.faces import FaceTensors
from training.data.neighbours import NearestFaces
from training.data.preparation import find_neighbours
from training.data.targets import target_distribution
from training.methods.distillation import Lessons
from training.methods.method import Method
from training.options import Recipe


class BatchMaker:
    """Makes batches of the training faces on the training device."""

    def __init__(self, recipe: Recipe, faces: FaceTensors, method: Method, fabric: Fabric) -> None:
        self.recipe, self.faces, self.device = recipe, faces, fabric.device
        self.augmentation = build_augmentation(recipe.augment).to(self.device)
        # The neighbours are not erased (LDLVA: only the centre is).
        self.around = build_augmentation(replace(recipe.augment, erase=0.0)).to(self.device)
        self.nearest = None
        if method.neighbours:
            squared = method.squared_similarity
            self.nearest = find_neighbours(
                faces, recipe.data, faces.names, method.neighbours, squared=squared
            )
        self.lessons: Lessons | None = None

    def make(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the fields of a `training.methods.method.Batch` of the faces (B,), and `taught` (B, E)."""
        mixup = self.recipe.augment.mixup
        faces = self.augment(rows, self.augmentation)
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
        return tensors if self.nearest is None else tensors | self.neighbours(rows, self.nearest)

    def neighbours(self, rows: torch.Tensor, nearest: NearestFaces) -> dict[str, torch.Tensor]:
        """Return the fields of `training.methods.method.Neighbours`."""
        around = nearest.rows[rows]
        faces = self.augment(around.flatten(), self.around)
        return {
            "neighbour_faces": faces.unflatten(0, around.shape),
            "neighbour_rows": around.to(self.device),
            "neighbour_labels": self.faces.labels[around].to(self.device),
            "similarity": nearest.similarity[rows].to(self.device),
        }

    def augment(self, rows: torch.Tensor, augmentation: torch.nn.Module) -> torch.Tensor:
        """Return the augmented faces (R, 3, S, S) in 0..1."""
        crops = self.faces.crops[rows].to(self.device)
        faces: torch.Tensor = augmentation(crops.permute(0, 3, 1, 2).float() / 255.0)
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


def check_batch(recipe: Recipe, faces: int, processes: int) -> None:
    """Refuse a batch that is larger than the faces, or that does not come out even.

    Raises:
        TrainingError: in either case.
    """
    options = recipe.optimiser
    if faces < options.batch_size:
        raise TrainingError(
            f"expected at least one batch of {options.batch_size} faces, got {faces} faces an epoch; lower "
            "optimiser.batch_size, or take more faces"
        )
    parts = options.accumulate * processes
    if options.batch_size % parts or options.batch_size // parts < 2:
        raise TrainingError(
            f"expected optimiser.batch_size as a multiple of {parts} ({processes} processes times accumulate "
            f"{options.accumulate}) with 2 faces or more in each part, got {options.batch_size}"
        )
    if options.minutes and processes > 1:
        raise TrainingError(
            "expected one process where optimiser.minutes is set; each has a clock of its own"
        )


def check_parts(recipe: Recipe, method: Method) -> None:
    """Refuse parts where the method updates its centres from the faces it saw last.

    Raises:
        TrainingError: accumulate is above 1 for such a method.
    """
    if method.needs_whole_batches() and recipe.optimiser.accumulate > 1:
        raise TrainingError(
            f"expected optimiser.accumulate = 1 with {method.name}, which updates its centres from whole "
            f"batches, got {recipe.optimiser.accumulate}"
        )


def memory_advice(recipe: Recipe, method: Method, processes: int) -> str:
    """Return how many faces were too many at once, and which recipe has fewer."""
    options = recipe.optimiser
    part = options.batch_size // (options.accumulate * processes)
    advice = f"with {part} faces at once; set "
    if not method.needs_whole_batches() and part % 2 == 0 and part >= 4:
        same = f"the same batch of {options.batch_size} in parts of {part // 2}"
        advice += f"optimiser.accumulate = {2 * options.accumulate} ({same}) or "
    return f"{advice}a smaller batch_size, and train into another --output"
