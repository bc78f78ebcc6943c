"""What the `train` command does: reads recipe and faces, runs the trainer, shows its progress."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import typer
from lightning.fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edge_fer.errors import CheckpointError, TrainingError
from edge_fer.output import check_place
from edge_fer.preprocess import CropSpec
from training.building import Start, build_network
from training.data.faces import FaceTensors, LoadOptions, drop_duplicates, load_faces
from training.data.labelled import split_data
from training.data.preparation import prepare
from training.devices import build_fabric, choose_device
from training.environment import describe_environment
from training.loop import Trainer
from training.methods.distillation import Lessons, agree, teach
from training.models.checkpoint import HEADER, Checkpoint, load_checkpoint, read_safetensors
from training.models.recognition import RecognitionEncoder, load_recognition
from training.options import Recipe
from training.recipe import load_recipe
from training.run import Origin, RunFolder, held
from training.run import Progress as RunProgress
from training.summary import write_summary


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """What `train` is asked for."""

    recipe_path: Path
    data: str
    output: Path
    device: str = "auto"
    resume: bool = False
    start: Path | None = None
    teachers: tuple[Path, ...] = ()
    skip_bad: bool = False
    cache: Path | None = None


def load_splits(
    options: TrainOptions, recipe: Recipe, crop: CropSpec, console: Console
) -> tuple[FaceTensors, FaceTensors]:
    """Read both splits; training faces whose pixels are also validation faces are dropped.

    Raises:
        InputError: unreadable data.
        TrainingError: training faces of one class alone.
    """
    train_data, valid_data = split_data(options.data)

    def tell(line: str) -> None:
        # Without emoji=False `:train:` becomes a picture of one.
        console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)

    how = LoadOptions(skip_bad=options.skip_bad, cache=options.cache, report=tell)
    every = load_faces(train_data, crop, recipe.network.classes, how)
    valid = load_faces(valid_data, crop, every.names, how)
    different = drop_duplicates(every, valid)
    train = prepare(different, recipe.data, len(every.names))
    dropped = len(every) - len(different)
    tell(f"{len(train)} training faces ({dropped} duplicates dropped), {len(valid)} for validation")
    counts = torch.bincount(train.labels, minlength=len(every.names)).tolist()
    if len(train) < len(different):
        tell(f"of each class, as the recipe asks for: {counts}")
    absent = [name for name, count in zip(every.names, counts, strict=True) if not count]
    if len(absent) + 1 >= len(counts):
        raise TrainingError(
            f"{train_data}: expected faces of two classes or more, got none of {', '.join(absent)}"
        )
    if absent:
        tell(f"no training faces of {', '.join(absent)}")
    return train, valid


def load_start(path: Path, recipe: Recipe) -> Start:
    """Read what a run starts from: a checkpoint, or for mobilefacenet the face-recognition weights.

    Raises:
        CheckpointError: missing, damaged or foreign.
        TrainingError: its tensors do not fit the recipe's network.
    """
    network = build_network(recipe)
    if isinstance(network.encoder, RecognitionEncoder):
        tensors, metadata = read_safetensors(path)
        if HEADER not in metadata:
            load_recognition(network.encoder, tensors, path)
            return Start(network, hashlib.sha256(path.read_bytes()).hexdigest())
    checkpoint = load_sound(path)
    expected, got = (
        {n: t.shape for n, t in some.state_dict().items()} for some in (network, checkpoint.network)
    )
    if expected != got:
        raise TrainingError(
            f"{path}: expected weights of the recipe's network {recipe.network.model}, got those of another "
            f"{checkpoint.network.spec.model}; start from one of the same model, classes and anchors"
        )
    return Start(checkpoint.network, checkpoint.sha256)


def load_sound(path: Path) -> Checkpoint:
    """Read a checkpoint and refuse weights that are no numbers.

    Raises:
        CheckpointError: missing, damaged, or such weights.
    """
    checkpoint = load_checkpoint(path)
    broken = [n for n, t in checkpoint.network.state_dict().items() if not bool(t.isfinite().all())]
    if broken:
        raise CheckpointError(
            f"{path}: expected weights that are numbers, got others in {broken[0]}; give another checkpoint"
        )
    return checkpoint


def load_teachers(paths: Sequence[Path], recipe: Recipe) -> tuple[Checkpoint, ...]:
    """Read the teachers where the recipe asks for some.

    Raises:
        CheckpointError: missing or damaged.
        TrainingError: asked for and not given, or the other way round.
    """
    if recipe.distillation.asked_for != bool(paths):
        raise TrainingError(
            "expected --teacher CHECKPOINT exactly where the recipe has a [distillation] above 0; "
            f"{recipe.name} {'has none' if paths else 'has one'}"
        )
    return tuple(load_sound(path) for path in paths)


def check_labels(options: TrainOptions, teachers: Sequence[Checkpoint], labels: tuple[str, ...]) -> None:
    """Refuse a teacher of other labels than the faces'.

    Raises:
        TrainingError: one knows others, or in another order.
    """
    for path, teacher in zip(options.teachers, teachers, strict=True):
        got = teacher.network.spec.labels
        if got != labels:
            raise TrainingError(
                f"{path}: expected a teacher of {len(labels)} labels, got one of {len(got)}: the faces have "
                f"{', '.join(labels)}, it has {', '.join(got)}"
            )


def judge(
    teachers: Sequence[Checkpoint],
    faces: FaceTensors,
    options: TrainOptions,
    recipe: Recipe,
    fabric: Fabric,
    console: Console,
) -> Lessons:
    """Return what the teachers say of the training faces, each at the size it was trained for.

    Raises:
        TrainingError: the faces at a teacher's size are not the same faces.
    """
    answers = []
    for teacher in teachers:
        network = teacher.network
        console.print(f"{network.spec.model} teaches, at {teacher.crop.size} pixels")
        seen = faces
        if teacher.crop.size != faces.crops.shape[1]:
            seen, _ = load_splits(options, recipe, teacher.crop, console)
        if not torch.equal(seen.labels, faces.labels):
            raise TrainingError(
                f"expected the {len(faces)} training faces at {teacher.crop.size} pixels too, got "
                f"{len(seen)}; some are duplicates at one size only: take a teacher of the same size"
            )
        answers.append(teach(network, seen.crops, fabric.device))
    return agree(answers)


def train_run(options: TrainOptions) -> None:
    """Run or resume a training run and print the path of its best checkpoint as the last line.

    Raises:
        EdgeFerError: whatever a user can put wrong, and a disk that is full.
    """
    try:
        best = train_in(options)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise TrainingError(
            f"{options.output}: the disk is full; every checkpoint that was complete before stays: make room "
            "and go on with --resume"
        ) from error
    if best is not None:
        typer.echo(best)


def train_in(options: TrainOptions) -> Path | None:
    """Run or resume a training run; return its best checkpoint in the process that speaks for all.

    Errors of the disk come as they are.
    """
    recipe = load_recipe(options.recipe_path)
    device = choose_device(options.device)
    folder = RunFolder(options.output)
    split_data(options.data)
    first = None if options.start is None else load_start(options.start, recipe)
    teachers = load_teachers(options.teachers, recipe)
    origin = Origin(
        recipe=recipe,
        data=options.data,
        start=None if first is None else first.sha256,
        teachers=tuple(teacher.sha256 for teacher in teachers),
    )
    folder.check(origin, resume=options.resume)
    check_place(folder.state)
    fabric = build_fabric(device, recipe.optimiser.precision)
    console = Console(stderr=True, quiet=not fabric.is_global_zero)
    with torch.device("meta"):  # what does not go together is refused before faces are read
        crop = recipe.crop.spec(build_network(recipe).spec.input_size)
    train, valid = load_splits(options, recipe, crop, console)
    check_labels(options, teachers, train.names)
    if first is not None and first.network.spec.labels != train.names:
        before, after = first.network.spec.labels, train.names
        console.print(f"weights of {', '.join(before)} begin as {', '.join(after)}", soft_wrap=True)
    trainer = Trainer(recipe, train, valid, folder, fabric, first)
    fabric.barrier()  # every process has seen the folder before one writes into it
    with held(folder.path) if fabric.is_global_zero else nullcontext():
        if fabric.is_global_zero:
            folder.check(origin, resume=options.resume)  # another run may have begun since
            if not options.resume:
                folder.start(origin)
        if teachers:
            lessons = lessons_of(teachers, train, options, recipe, fabric, console)
            trainer.learn_from(lessons, origin.teachers)
        if options.resume:
            trainer.resume()
        if fabric.is_global_zero and not trainer.finished:
            folder.note_environment(describe_environment(fabric))
        follow(trainer, recipe, console)
    best = trainer.progress
    console.print(f"best validation accuracy {best.best_accuracy:.4f} in epoch {best.best_epoch}")
    return folder.best if fabric.is_global_zero else None


def lessons_of(
    teachers: Sequence[Checkpoint],
    train: FaceTensors,
    options: TrainOptions,
    recipe: Recipe,
    fabric: Fabric,
    console: Console,
) -> Lessons:
    """Return the teachers' answers from the run folder, written there before by one process."""
    folder = RunFolder(options.output)
    if fabric.is_global_zero and folder.load_lessons(len(train)) is None:
        folder.save_lessons(judge(teachers, train, options, recipe, fabric, console))
    fabric.barrier()
    lessons = folder.load_lessons(len(train))
    assert lessons is not None
    return lessons


def epoch_line(record: dict[str, object], *, balanced: bool) -> str:
    """Return what is printed after an epoch."""
    line = (
        f"epoch {record['epoch']}: accuracy {record['accuracy']:.4f}, mean recall {record['mean_recall']:.4f}"
    )
    if not balanced:
        return line
    return (
        f"{line}, primary {record['primary_accuracy']:.4f}, weights: correction "
        f"{record['correction_weight']:.2f}, anchors {record['anchor_weight']:.2f}"
    )


def follow(trainer: Trainer, recipe: Recipe, console: Console) -> None:
    """Run the trainer under a progress bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        total = recipe.optimiser.epochs * trainer.batches_per_epoch
        task = bar.add_task("training", total=total, completed=trainer.progress.step)

        def report(progress: RunProgress, record: dict[str, object]) -> None:
            bar.update(task, completed=progress.step)
            if record["kind"] == "validation":
                line = epoch_line(record, balanced=trainer.network.spec.head == "balanced")
                console.print(line, soft_wrap=True)
                write_summary(trainer.folder)
                for warning in record.get("warnings", ()):  # type: ignore[attr-defined]
                    console.print(f"[yellow]warning:[/yellow] {warning}")
            else:
                bar.update(
                    task, description=f"loss {record['total']:.3f}, {record['faces_per_s']:.0f} faces/s"
                )

        trainer.run(report)
