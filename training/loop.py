"""The training loop: recipe and faces in, checkpoints and metrics out; resumable bit for bit.

Every random choice is a function of (seed, epoch, batch) alone, so no generator state has to be saved.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from lightning.fabric import Fabric

from edge_fer.errors import TrainingError
from edge_fer.preprocess import CropSpec
from training.averaging import WeightAverage
from training.data.augment import Mixing, build_augmentation, draw_mixing
from training.data.faces import FaceTensors, batches, epoch_order
from training.evaluation import Evaluation, embed, evaluate
from training.methods.distillation import Lessons, embedding_loss
from training.methods.grefel import (
    GrefelLoss,
    LossTerms,
    class_weights,
    place_anchors,
    target_distribution,
)
from training.models import (
    DEFAULTS,
    ExpressionNetwork,
    HeadOutput,
    build_from_spec,
    calibrated,
    standardise,
)
from training.models.balancing import ReliabilityBalancing
from training.models.checkpoint import save_checkpoint
from training.recipe import OptimiserOptions, Recipe
from training.run import Progress, RunFolder

ANCHOR_FACES = 4096
Report = Callable[[Progress, "dict[str, object]"], None]


def learning_rate(options: OptimiserOptions, step: int, steps: int) -> float:
    """Return the rate of one step: linear warm-up over the first share of the steps, then cosine to zero."""
    warmup = max(1, round(options.warmup * steps))
    if step < warmup:
        return options.learning_rate * (step + 1) / warmup
    return options.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def build_network(recipe: Recipe) -> ExpressionNetwork:
    """Build the recipe's network with weights from its seed."""
    options = recipe.network
    default = DEFAULTS[options.model]
    spec = replace(
        default,
        labels=default.labels[: options.classes],
        input_size=options.input_size or default.input_size,
        head=options.head,
        anchors=options.anchors,
        delta=options.delta,
        slots=options.slots,
        dropout=options.dropout,
    )
    torch.manual_seed(recipe.optimiser.seed)
    return build_from_spec(spec)


class Trainer:
    """One run: owns the network, its optimiser, the faces and the run folder."""

    def __init__(
        self,
        recipe: Recipe,
        train: FaceTensors,
        valid: FaceTensors,
        crop: CropSpec,
        folder: RunFolder,
        device: str,
    ) -> None:
        options = recipe.optimiser
        if len(train) < options.batch_size:
            raise TrainingError(
                f"expected at least one batch of {options.batch_size} faces, got {len(train)} faces"
            )
        torch.use_deterministic_algorithms(True, warn_only=device != "cpu")
        self.fabric = Fabric(accelerator=device, devices=1, precision=options.precision)  # type: ignore[arg-type]
        self.recipe, self.train_faces, self.valid_faces = recipe, train, valid
        self.crop, self.folder = crop, folder
        self.network = build_network(recipe)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        plain = [p for p in self.network.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
        optimiser = torch.optim.AdamW(groups, lr=options.learning_rate, weight_decay=options.weight_decay)
        self.model, self.optimiser = self.fabric.setup(self.network, optimiser)
        self.augmentation = build_augmentation(recipe.augment).to(self.fabric.device)
        weights = class_weights(train.labels, len(self.network.spec.labels), recipe.method.balance)
        self.loss = GrefelLoss(recipe.method, weights.to(self.fabric.device))
        self.average = WeightAverage(self.network, options.average) if options.average else None
        head, delta = self.network.head, recipe.method.training_delta
        if delta is not None and isinstance(head, ReliabilityBalancing):
            head.anchor_correction.delta = delta  # the average, already taken, keeps the network's own
        self.start: str | None = None
        self.teachers: tuple[str, ...] = ()
        self.lessons: Lessons | None = None
        self.batches_per_epoch = len(train) // options.batch_size
        self.progress = Progress()

    @property
    def shown(self) -> ExpressionNetwork:
        """The network that is validated and kept: the average of the weights if the recipe asks for one."""
        return self.network if self.average is None else self.average.network

    def start_from(self, network: ExpressionNetwork, sha256: str) -> None:
        """Begin with these weights, their anchors too where the recipe has no warm-up epochs."""
        self.network.load_state_dict(network.state_dict())
        self.start = sha256
        if self.average is not None:
            self.average.restart(self.network)

    def learn_from(self, lessons: Lessons, teachers: tuple[str, ...]) -> None:
        """Let the answers of teachers (SHA-256 of each) on the training faces into the loss."""
        self.lessons, self.teachers = lessons, teachers

    def resume(self) -> None:
        """Take up the run where its last saved state left it."""
        saved = self.folder.load_state()
        if saved is None:
            return
        tensors, self.progress = saved
        self.network.load_state_dict({n[6:]: t for n, t in tensors.items() if n.startswith("model.")})
        if self.average is not None:
            self.average.network.load_state_dict(
                {n[8:]: t for n, t in tensors.items() if n.startswith("average.")}
            )
        state = self.optimiser.state_dict()
        state["state"] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimiser."):
                _, index, key = name.split(".")
                state["state"].setdefault(int(index), {})[key] = tensor
        self.optimiser.load_state_dict(state)

    def save(self) -> None:
        """Write the resumable state."""
        tensors = {f"model.{name}": tensor for name, tensor in self.network.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{name}": t for name, t in self.average.network.state_dict().items()}
        for index, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{key}": value for key, value in values.items()}
        self.folder.save_state(tensors, self.progress)

    def run(self, report: Report) -> None:
        """Train to the last epoch; `report` is told every line of metrics."""
        while self.progress.epoch < self.recipe.optimiser.epochs:
            self.run_epoch(report)
            self.finish_epoch(report)

    def run_epoch(self, report: Report) -> None:
        """Train the rest of the current epoch."""
        options, epoch = self.recipe.optimiser, self.progress.epoch
        order = epoch_order(len(self.train_faces), options.seed, epoch)
        placed = epoch == 0 and self.start is not None  # by the run that the checkpoint is of
        if self.progress.batch == 0 and epoch == self.recipe.method.warmup_epochs and not placed:
            self.place_anchors(order)
        self.network.train()
        window: list[torch.Tensor] = []
        started = time.perf_counter()
        for number, indices in batches(order, options.batch_size, self.progress.batch):
            rate, values = self.train_step(indices, number)
            window.append(values)
            self.progress = replace(self.progress, batch=number + 1, step=self.progress.step + 1)
            if (number + 1) % options.checkpoint_every == 0 or number + 1 == self.batches_per_epoch:
                seconds = time.perf_counter() - started
                self.log_window(window, rate, len(window) * options.batch_size / seconds, report)
                self.save()
                window, started = [], time.perf_counter()

    def train_step(self, indices: torch.Tensor, number: int) -> tuple[float, torch.Tensor]:
        """Train one batch; return the learning rate and the terms and mean weights as one tensor."""
        options, progress = self.recipe.optimiser, self.progress
        rate = learning_rate(options, progress.step, options.epochs * self.batches_per_epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        torch.manual_seed((options.seed * 1_000_003 + progress.epoch) * 100_003 + number)
        crops = self.train_faces.crops[indices].to(self.fabric.device)
        faces = self.augmentation(crops.permute(0, 3, 1, 2).float() / 255.0).clamp(0.0, 1.0)
        mixup = self.recipe.augment.mixup
        mixing = draw_mixing(len(faces), mixup, faces.device) if mixup else None
        faces = faces if mixing is None else mixing(faces)
        images = standardise(faces, self.network).contiguous(memory_format=torch.channels_last)
        output = self.model(images)
        terms = self.terms(output, indices, mixing)
        self.fabric.backward(terms.total)
        if not torch.isfinite(terms.total):
            bad = [name for name, value in terms._asdict().items() if not torch.isfinite(value)]
            self.refuse(f"the loss term {' and '.join(bad[1:] or bad)}")
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), options.clip_norm)
        if not torch.isfinite(norm):
            self.refuse("the norm of the gradient")
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.average is not None:
            self.average.update(self.network, progress.step)
        values = torch.stack([*terms, output.correction_weight.mean(), output.anchor_weight.mean()])
        return rate, values.detach().cpu()

    def terms(self, output: HeadOutput, indices: torch.Tensor, mixing: Mixing | None) -> LossTerms:
        """Return the loss terms of one batch, whose faces were mixed by `mixing`."""
        device = self.fabric.device
        labels = self.train_faces.labels[indices].to(device)
        votes = self.train_faces.votes
        soft = votes[indices].to(device) if votes is not None and self.recipe.method.soft_targets else None
        target = target_distribution(
            labels, soft, len(self.network.spec.labels), self.recipe.method.min_votes
        )
        if self.lessons is not None:
            target = target.lerp(
                self.lessons.probabilities[indices].to(device), self.recipe.distillation.share
            )
        target = target if mixing is None else mixing(target)
        balanced = self.progress.epoch >= self.recipe.method.warmup_epochs
        head = self.network.head
        # A head without anchors has no distances, and the loss does not look at this argument.
        anchors = (
            head.anchor_correction.anchors if isinstance(head, ReliabilityBalancing) else output.embedding
        )
        terms = self.loss(output, anchors, labels, target, balanced=balanced)
        if self.lessons is None:
            return terms
        taught = self.lessons.embeddings[indices].to(device)
        taught = taught if mixing is None else mixing(taught)
        matched = embedding_loss(output.embedding.float(), taught)
        total = terms.total + self.recipe.distillation.embedding * matched
        return terms._replace(total=total, embedding=matched)

    def refuse(self, what: str) -> None:
        """Stop on something that is not finite; the last saved state stays."""
        raise TrainingError(
            f"step {self.progress.step}: {what} is not finite; what was saved before stays in "
            f"{self.folder.path}; lower optimiser.learning_rate and train into another --output"
        )

    def place_anchors(self, order: torch.Tensor) -> None:
        """Put the anchors on the embeddings of training faces (systems §1.7)."""
        head = self.network.head
        if not isinstance(head, ReliabilityBalancing):
            return
        chosen = order[:ANCHOR_FACES]
        embeddings = embed(self.network, self.train_faces.crops[chosen], self.fabric.device)
        anchors = head.anchor_correction.anchors
        labels = self.train_faces.labels[chosen]
        anchors.data.copy_(
            place_anchors(embeddings, labels, anchors.detach().cpu(), self.recipe.optimiser.seed)
        )
        if self.average is not None:
            self.average.restart(self.network)

    def log_window(self, window: list[torch.Tensor], rate: float, faces_per_s: float, report: Report) -> None:
        """Write the means of the batches since the last line."""
        means = torch.stack(window).double().mean(dim=0).tolist()
        names = (*LossTerms._fields, "correction_weight", "anchor_weight")
        record: dict[str, object] = {
            "kind": "train",
            "epoch": self.progress.epoch,
            "step": self.progress.step,
            "learning_rate": rate,
            **dict(zip(names, means, strict=True)),
            "faces_per_s": round(faces_per_s, 1),
        }
        self.progress = self.folder.append(self.progress, record)
        report(self.progress, record)

    def finish_epoch(self, report: Report) -> None:
        """Validate, write the checkpoints, move on to the next epoch."""
        figures = evaluate(self.shown, self.valid_faces, self.fabric.device)
        epoch = self.progress.epoch
        record: dict[str, object] = {
            "kind": "validation",
            "epoch": epoch,
            "step": self.progress.step,
            **asdict(figures),
        }
        if epoch >= self.recipe.method.warmup_epochs and self.network.spec.head == "balanced":
            record["warnings"] = figures.dead_branches()
        self.progress = self.folder.append(self.progress, record)
        self.write_checkpoint(figures, best=figures.accuracy > self.progress.best_accuracy)
        if figures.accuracy > self.progress.best_accuracy:
            self.progress = replace(self.progress, best_accuracy=figures.accuracy, best_epoch=epoch)
        self.progress = replace(self.progress, epoch=epoch + 1, batch=0)
        self.save()
        report(self.progress, record)

    def write_checkpoint(self, figures: Evaluation, *, best: bool) -> None:
        """Write `last`, and `best` where validation accuracy rose; calibrated on the validation faces."""
        info = {
            "recipe": self.recipe.to_json(),
            "weights": asdict(self.recipe.weights),
            "epoch": self.progress.epoch,
            "validation": asdict(figures),
            "start": self.start,
            "teachers": list(self.teachers),
        }
        for path in (self.folder.last, self.folder.best) if best else (self.folder.last,):
            save_checkpoint(path, calibrated(self.shown, figures.temperature), self.crop, info)
