"""What the `train` command does: reads recipe and faces, runs the trainer, shows its progress."""

from __future__ import annotations

from pathlib import Path

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edge_fer.errors import TrainingError
from edge_fer.preprocess import CropSpec
from training.commands import split_data
from training.data.faces import FaceTensors, drop_duplicates, load_faces
from training.loop import Trainer, build_network
from training.models.checkpoint import Checkpoint, load_checkpoint
from training.recipe import Recipe, load_recipe
from training.run import Progress as RunProgress
from training.run import RunFolder


def choose_device(device: str) -> str:
    """Return cpu or cuda.

    Raises:
        TrainingError: an unknown device, or cuda where there is none.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise TrainingError(f"expected --device auto, cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device cuda: this machine has no CUDA device torch can use; use --device cpu")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def load_splits(data: str, crop: CropSpec, classes: int, console: Console) -> tuple[FaceTensors, FaceTensors]:
    """Read both splits; training faces whose pixels are also validation faces are dropped."""
    train_data, valid_data = split_data(data)
    valid = load_faces(valid_data, crop, classes)
    every = load_faces(train_data, crop, classes)
    train = drop_duplicates(every, valid)
    dropped = len(every) - len(train)
    console.print(f"{len(train)} training faces ({dropped} duplicates dropped), {len(valid)} for validation")
    return train, valid


def load_start(start: Path, recipe: Recipe) -> Checkpoint:
    """Read the checkpoint a run starts from.

    Raises:
        CheckpointError: missing or damaged.
        TrainingError: its tensors do not fit the recipe's network.
    """
    checkpoint = load_checkpoint(start)
    expected, got = (
        {n: t.shape for n, t in network.state_dict().items()}
        for network in (build_network(recipe), checkpoint.network)
    )
    if expected != got:
        raise TrainingError(
            f"{start}: expected weights of the recipe's network {recipe.network.model}, got those of another "
            f"{checkpoint.network.spec.model}; start from one of the same model, classes and anchors"
        )
    return checkpoint


def train_run(
    *, recipe_path: Path, data: str, output: Path, device: str, resume: bool, start: Path | None = None
) -> None:
    """Run or resume a training run and print the path of its best checkpoint as the last line."""
    console = Console(stderr=True)
    recipe = load_recipe(recipe_path)
    device = choose_device(device)
    folder = RunFolder(output)
    split_data(data)
    first = None if start is None else load_start(start, recipe)
    origin = None if first is None else first.sha256
    folder.check(recipe, data, origin, resume=resume)
    options = recipe.crop
    size = build_network(recipe).spec.input_size
    crop = CropSpec(
        size=size, margin=options.margin, alignment=options.alignment, template=options.template()
    )
    train, valid = load_splits(data, crop, recipe.network.classes, console)
    trainer = Trainer(recipe, train, valid, crop, folder, device)
    if first is not None:
        trainer.start_from(first)
    if resume:
        trainer.resume()
    else:
        folder.start(recipe, data, origin)
    follow(trainer, recipe, console)
    best = trainer.progress
    console.print(f"best validation accuracy {best.best_accuracy:.4f} in epoch {best.best_epoch}")
    typer.echo(folder.best)


def follow(trainer: Trainer, recipe: Recipe, console: Console) -> None:
    """Run the trainer under a progress bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        total = recipe.optimiser.epochs * trainer.batches_per_epoch
        task = bar.add_task("training", total=total, completed=trainer.progress.step)

        def report(progress: RunProgress, record: dict[str, object]) -> None:
            bar.update(task, completed=progress.step)
            if record["kind"] == "validation":
                console.print(
                    f"epoch {record['epoch']}: accuracy {record['accuracy']:.4f} (primary "
                    f"{record['primary_accuracy']:.4f}), mean recall {record['mean_recall']:.4f}, weights: "
                    f"correction {record['correction_weight']:.2f}, anchors {record['anchor_weight']:.2f}"
                )
                for warning in record.get("warnings", ()):  # type: ignore[attr-defined]
                    console.print(f"[yellow]warning:[/yellow] {warning}")
            else:
                bar.update(
                    task, description=f"loss {record['total']:.3f}, {record['faces_per_s']:.0f} faces/s"
                )

        trainer.run(report)
