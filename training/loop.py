"""The training loop: recipe and faces in, checkpoints and metrics out; resumable bit for bit.

Every random choice is a function of (seed, epoch, batch, process) alone: no generator state has to be saved.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace

import torch
from lightning.fabric import Fabric
from torch import nn

from edge_fer.errors import TrainingError
from training.averaging import WeightAverage
from training.batches import BatchMaker, check_batch, check_parts, memory_advice
from training.building import Start, build_method, build_network
from training.data.faces import FaceTensors
from training.data.order import batches, epoch_order
from training.devices import ran_out_of_memory, refuse_compilation
from training.evaluation import Evaluation, embed, evaluate
from training.learner import Learner, Parcel, assemble
from training.methods.distillation import Lessons
from training.methods.method import Moment, Terms
from training.models import ExpressionNetwork, calibrated
from training.models.checkpoint import save_checkpoint
from training.optimiser import at_sharpest, build_optimiser, kept_statistics, set_rates
from training.options import Recipe
from training.run import Progress, RunFolder

Report = Callable[[Progress, "dict[str, object]"], None]


class Trainer:
    """One run: owns the network, the method, their optimiser, the faces and the run folder.

    It begins with the weights of `start`, if any, their anchors too where the recipe has no warm-up epochs.
    """

    def __init__(
        self,
        recipe: Recipe,
        train: FaceTensors,
        valid: FaceTensors,
        folder: RunFolder,
        fabric: Fabric,
        start: Start | None = None,
    ) -> None:
        options = recipe.optimiser
        self.recipe, self.train_faces, self.valid_faces = recipe, train, valid
        faces = len(self.order(0))
        check_batch(recipe, faces, fabric.world_size)
        torch.use_deterministic_algorithms(True, warn_only=fabric.device.type != "cpu")
        self.folder, self.fabric = folder, fabric
        self.network = build_network(recipe, train.names)
        self.crop = recipe.crop.spec(self.network.spec.input_size)
        self.start = None if start is None else start.sha256
        if start is not None:
            self.network.load_state_dict(start.network.state_dict())
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = WeightAverage(self.network, options.average) if options.average else None
        self.method = build_method(recipe, self.network, train)
        check_parts(recipe, self.method)
        self.learner = Learner(self.network, self.method, recipe.distillation.embedding)
        if fabric.world_size > 1 and fabric.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(self.learner)  # replaces the norms inside
        self.parts = BatchMaker(recipe, train, self.method, fabric)
        own = {id(parameter) for parameter in self.method.own_parameters()}
        trained = [p for p in self.network.encoder.parameters() if id(p) not in own]
        added = [*self.network.head.parameters(), *self.method.parameters()]
        optimiser = build_optimiser(trained, [p for p in added if id(p) not in own], options)
        module: nn.Module = torch.compile(self.learner) if options.compile else self.learner  # type: ignore[assignment]
        self.model, self.optimiser = fabric.setup(module, optimiser)
        if self.average is not None:
            self.average.network.to(fabric.device)
        self.teachers: tuple[str, ...] = ()
        self.batches_per_epoch = faces // options.batch_size
        self.faces = digest(train.labels, valid.labels)
        self.progress = Progress()

    @property
    def shown(self) -> ExpressionNetwork:
        """The network that is validated and kept: the average of the weights if the recipe asks for one."""
        return self.network if self.average is None else self.average.network

    @property
    def steps(self) -> int:
        """How many optimiser steps all epochs have."""
        return self.recipe.optimiser.epochs * self.batches_per_epoch

    @property
    def finished(self) -> bool:
        """Whether the epochs, the time or the patience are used up, and the last epoch is validated."""
        options, progress = self.recipe.optimiser, self.progress
        waited = progress.epoch - 1 - progress.best_epoch
        return (
            progress.epoch >= options.epochs
            or (self.out_of_time and progress.batch == 0)
            or (options.patience > 0 and progress.epoch > 0 and waited >= options.patience)
        )

    @property
    def out_of_time(self) -> bool:
        """Whether the recipe's minutes of training are over."""
        minutes = self.recipe.optimiser.minutes
        return minutes > 0 and self.progress.seconds >= 60.0 * minutes

    def learn_from(self, lessons: Lessons, teachers: tuple[str, ...]) -> None:
        """Let the answers of teachers (SHA-256 of each) on the training faces into the loss."""
        self.parts.lessons, self.teachers = lessons, teachers

    def resume(self) -> None:
        """Take up the run where its last saved state left it.

        Raises:
            TrainingError: the state is of other faces, or of another network, method or program.
            CheckpointError: it is damaged.
        """
        saved = self.folder.load_state(write=self.fabric.is_global_zero)
        self.fabric.barrier()
        if saved is None:
            return
        tensors, self.progress = saved
        if not torch.equal(tensors.get("faces", self.faces), self.faces):
            raise TrainingError(
                f"{self.folder.path}: this run began with other faces or labels under the same --data; put "
                "them back, or train into another --output"
            )
        try:
            self.load(tensors)
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise TrainingError(
                f"{self.folder.state}: expected the state of this recipe's network and method, got another "
                f"({reason}); train into another --output"
            ) from error

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Set network, method and optimiser to a saved state."""
        self.network.load_state_dict(part_of(tensors, "model"))
        self.method.load_state_dict(part_of(tensors, "method"))
        if self.average is not None:
            self.average.network.load_state_dict(part_of(tensors, "average"))
        state = self.optimiser.state_dict()
        state["state"] = {}
        for name, tensor in part_of(tensors, "optimiser").items():
            index, key = name.split(".")
            state["state"].setdefault(int(index), {})[key] = tensor
        self.optimiser.load_state_dict(state)

    def save(self) -> None:
        """Write the resumable state."""
        if not self.fabric.is_global_zero:
            return
        modules: dict[str, nn.Module] = {"model": self.network, "method": self.method}
        if self.average is not None:
            modules["average"] = self.average.network
        tensors = {
            f"{name}.{k}": t for name, module in modules.items() for k, t in module.state_dict().items()
        }
        for index, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{key}": t for key, t in values.items() if t is not None}
        tensors["faces"] = self.faces
        self.folder.save_state(tensors, self.progress)

    def run(self, report: Report) -> None:
        """Train to the end; `report` is told every line of metrics.

        Raises:
            TrainingError: values that are not finite, too little memory, or torch.compile does not work here.
        """
        try:
            while not self.finished:
                self.run_epoch(report)
                self.finish_epoch(report)
        except RuntimeError as error:
            if self.recipe.optimiser.compile:
                refuse_compilation(error)
            if not ran_out_of_memory(error):
                raise
            advice = memory_advice(self.recipe, self.method, self.fabric.world_size)
            raise TrainingError(f"out of memory {advice}") from error

    def run_epoch(self, report: Report) -> None:
        """Train the rest of the current epoch, or what there is time for."""
        options, epoch = self.recipe.optimiser, self.progress.epoch
        order = self.order(epoch)
        if self.progress.batch == 0 and self.begin_epoch(order) and self.average is not None:
            self.average.restart(self.network)
        self.model.train()
        if options.frozen_norms:
            freeze_norms(self.learner)
        window: list[Terms] = []
        started = logged = time.perf_counter()
        for number, rows in batches(order, options.batch_size, self.progress.batch):
            if self.out_of_time:
                return
            rate, terms = self.train_step(rows, number)
            window.append(terms)
            now = time.perf_counter()
            self.progress = replace(
                self.progress,
                batch=number + 1,
                step=self.progress.step + 1,
                seconds=self.progress.seconds + now - started,
            )
            started = now
            last = number + 1 == self.batches_per_epoch or self.out_of_time
            if (number + 1) % options.checkpoint_every == 0 or last:
                self.log_window(window, rate, len(window) * options.batch_size / (now - logged), report)
                self.save()
                window = []
                started = logged = time.perf_counter()

    def order(self, epoch: int) -> torch.Tensor:
        """Return the rows of an epoch in their order."""
        faces, recipe = self.train_faces, self.recipe
        return epoch_order(
            faces.labels, recipe.optimiser.seed, epoch, recipe.data.sampling(), groups=faces.groups
        )

    def begin_epoch(self, order: torch.Tensor) -> bool:
        """Let the method prepare the epoch; return whether it changed the network."""

        def embeddings(rows: torch.Tensor) -> torch.Tensor:
            return embed(self.network, self.train_faces.crops[rows], self.fabric.device)

        changed = self.method.begin_epoch(self.network, order, embeddings, self.moment())
        if changed and self.fabric.world_size > 1:
            for tensor in self.learner.state_dict().values():
                torch.distributed.broadcast(tensor, src=0)  # the processes' own statistics differ
        return changed

    def moment(self) -> Moment:
        """Return where the run stands, as methods see it."""
        options = self.recipe.optimiser
        return Moment(
            epoch=self.progress.epoch,
            epochs=options.epochs,
            step=self.position(),
            steps=self.steps,
            seed=options.seed,
            pretrained=self.start is not None,
        )

    def position(self) -> int:
        """Return how far the schedule is, in steps: by time where the recipe has minutes."""
        minutes = self.recipe.optimiser.minutes
        if not minutes:
            return self.progress.step
        return min(self.steps - 1, int(self.steps * self.progress.seconds / (60.0 * minutes)))

    def train_step(self, rows: torch.Tensor, number: int) -> tuple[float, Terms]:
        """Train one batch; return the learning rate and the means of the terms over its parts."""
        options = self.recipe.optimiser
        rate = set_rates(self.optimiser, options, self.position(), self.steps)
        self.learner.moment = self.moment()
        terms, last = self.backward(rows, number)
        if options.sharpness:
            with (
                at_sharpest(list(self.learner.parameters()), options.sharpness),
                kept_statistics(self.learner),
            ):
                self.backward(rows, number)
        norm = torch.nn.utils.clip_grad_norm_(self.learner.parameters(), options.clip_norm)
        if not torch.isfinite(norm):
            self.refuse("the norm of the gradient")
        self.optimiser.step()
        self.method.after_step(self.network, assemble(last))
        self.optimiser.zero_grad()
        if self.average is not None:
            self.average.update(self.network, self.progress.step)
        return rate, terms

    def backward(self, rows: torch.Tensor, number: int) -> tuple[Terms, dict[str, torch.Tensor]]:
        """Add up the gradients of a batch, part by part; return the terms' means and the last part.

        Two processes with one part each have the same parts as one process with two.
        """
        options = self.recipe.optimiser
        rank, processes = self.fabric.global_rank, self.fabric.world_size
        torch.manual_seed((options.seed * 1_000_003 + self.progress.epoch) * 100_003 + number + 10_007 * rank)
        mean: Terms = {}
        stride = processes * options.accumulate
        own = [rows[first::stride] for first in range(rank, stride, processes)]
        for count, part in enumerate(own, start=1):
            tensors = self.parts.make(part)
            unfinished = count < len(own)
            with self.fabric.no_backward_sync(self.model) if unfinished else nullcontext():  # type: ignore[arg-type]
                terms: Terms = self.model(Parcel(tensors))
                self.fabric.backward(terms["total"] / len(own))
            bad = [name for name, value in terms.items() if not torch.isfinite(value)]
            if bad:
                self.refuse(f"the loss term {' and '.join([n for n in bad if n != 'total'] or bad)}")
            for name, value in terms.items():
                mean[name] = mean.get(name, 0.0) + value.detach() / len(own)
        return mean, tensors

    def refuse(self, what: str) -> None:
        """Stop on something that is not finite; the last saved state stays."""
        raise TrainingError(
            f"step {self.progress.step}: {what} is not finite; what was saved before stays in "
            f"{self.folder.path}; lower optimiser.learning_rate and train into another --output"
        )

    def log_window(self, window: list[Terms], rate: float, faces_per_s: float, report: Report) -> None:
        """Write the means of the batches since the last line, over all processes."""
        names = list(window[0])
        values = torch.stack([torch.stack([terms[name] for name in names]) for terms in window])
        means = self.fabric.all_reduce(values.double().mean(dim=0), reduce_op="mean")
        assert isinstance(means, torch.Tensor)
        record: dict[str, object] = {
            "kind": "train",
            "epoch": self.progress.epoch,
            "step": self.progress.step,
            "learning_rate": rate,
            **dict(zip(names, means.tolist(), strict=True)),
            "faces_per_s": round(faces_per_s, 1),
        }
        self.write(record, report)

    def write(self, record: dict[str, object], report: Report) -> None:
        """Append one line of metrics, once for all processes."""
        if self.fabric.is_global_zero:
            self.progress = self.folder.append(self.progress, record)
            report(self.progress, record)

    def finish_epoch(self, report: Report) -> None:
        """Validate, write the checkpoints, move on to the next epoch."""
        figures = None
        if self.fabric.is_global_zero:
            figures = evaluate(self.shown, self.valid_faces, self.fabric.device)
        figures = self.fabric.broadcast(figures)
        assert figures is not None
        epoch = self.progress.epoch
        record: dict[str, object] = {
            "kind": "validation",
            "epoch": epoch,
            "step": self.progress.step,
            **asdict(figures),
            "faces": self.batches_per_epoch * self.recipe.optimiser.batch_size,
            "warnings": self.method.warnings(figures, self.network, epoch),
        }
        better = figures.accuracy > self.progress.best_accuracy
        self.write_checkpoint(figures, best=better)
        if better:
            self.progress = replace(self.progress, best_accuracy=figures.accuracy, best_epoch=epoch)
        self.write(record, report)
        self.progress = replace(self.progress, epoch=epoch + 1, batch=0)
        self.save()

    def write_checkpoint(self, figures: Evaluation, *, best: bool) -> None:
        """Write `last`, and `best` where validation accuracy rose; calibrated on the validation faces."""
        if not self.fabric.is_global_zero:
            return
        info = {
            "recipe": self.recipe.to_json(),
            "weights": asdict(self.recipe.weights),
            "epoch": self.progress.epoch,
            "validation": asdict(figures),
            "start": self.start,
            "teachers": list(self.teachers),
        }
        network = calibrated(self.shown, figures.temperature)
        for path in (self.folder.last, self.folder.best) if best else (self.folder.last,):
            save_checkpoint(path, network, self.crop, info)


def digest(*labels: torch.Tensor) -> torch.Tensor:
    """Return the SHA-256 of labels, each (N,), as (32,) uint8, by which a resumed run knows its faces."""
    total = hashlib.sha256()
    for tensor in labels:
        total.update(f"{len(tensor)} ".encode() + tensor.numpy().tobytes())
    return torch.tensor(list(total.digest()), dtype=torch.uint8)


def part_of(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """Return the tensors of one part of a saved state, under their own names."""
    return {key.partition(".")[2]: t for key, t in tensors.items() if key.startswith(f"{name}.")}


def freeze_norms(learner: nn.Module) -> None:
    """Put the BatchNorms into eval mode."""
    for module in learner.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
