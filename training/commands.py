"""The commands `train`, `evaluate` and `sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_fer.cli_errors import guarded
from edge_fer.errors import MissingPackageError, UsageError
from training.sweeps.grids import grid_names

app = typer.Typer(no_args_is_help=True)


@app.command()
@guarded
def train(
    recipe: Annotated[Path, typer.Option(help="TOML recipe, see training/recipes.")],
    data: Annotated[
        str,
        typer.Option(
            help="LAYOUT:DIR (ferplus, rafdb, …), or a folder with train/ and valid/, a folder per class."
        ),
    ],
    output: Annotated[Path, typer.Option(help="Run folder: metrics, checkpoints, resumable state.")],
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    start: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint to start from, not random weights; for mobilefacenet recognition weights too."
        ),
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(help="Checkpoint to learn from, for a \\[distillation]; several: their mean."),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out pictures that cannot be read; they are listed.")
    ] = False,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for decoded crops, which later runs read at once.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run was stopped.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Train a network; the same command with --resume goes on after a kill, bit for bit."""
    try:
        from training.session import TrainOptions, train_run
    except ImportError as error:
        raise MissingPackageError.of_stage("train", error, "train") from error
    train_run(
        TrainOptions(
            recipe_path=recipe,
            data=data,
            output=output,
            device=device,
            resume=resume,
            start=start,
            teachers=tuple(teacher or ()),
            skip_bad=skip_bad,
            cache=cache,
        )
    )


@app.command()
@guarded
def evaluate(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|CHECKPOINT", help="Run folder (best and last), or one checkpoint.")
    ],
    data: Annotated[
        str, typer.Option(help="Faces with labels: ferplus:DIR[:SPLIT], a folder per class, a CSV.")
    ],
    output: Annotated[
        Path, typer.Option(help="Folder for evaluation.json, faces.csv and the pictures (which show faces).")
    ],
    beside: Annotated[
        Path | None, typer.Option(help="Another evaluation of the same faces, to be shown beside this one.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    batch: Annotated[int, typer.Option(help="Faces at once.")] = 256,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Measure a run, or one checkpoint, on labelled faces: figures as JSON and CSV, pictures as PNG."""
    try:
        from training.evaluate.session import EvaluateOptions, evaluate_run
    except ImportError as error:
        raise MissingPackageError.of_stage("evaluate", error, "train") from error
    evaluate_run(
        EvaluateOptions(source=source, data=data, output=output, beside=beside, device=device, batch=batch)
    )


@app.command()
@guarded
def sweep(
    grid: Annotated[str, typer.Argument(help=f"TOML file, or one of {', '.join(grid_names())}.")],
    output: Annotated[Path, typer.Option(help="Folder of the sweep: TABLE.md, recipes, runs.")],
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=DATA for a data set of the grid; without, its cells show what was published."
        ),
    ] = None,
    rows: Annotated[
        list[str] | None, typer.Option(help="Train these rows only: a name or a pattern such as 'K = *'.")
    ] = None,
    columns: Annotated[list[str] | None, typer.Option(help="Train these columns only, likewise.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs per cell; the table has their mean.")] = 1,
    epochs: Annotated[int | None, typer.Option(min=1, help="In place of the recipes'.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Of training for every run alike, in place of epochs.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="TOML recipe in place of the rows' own, but for their \\[method].")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Train a grid of runs and write its table; the same command again goes on where it was stopped."""
    if epochs is not None and minutes is not None:
        raise UsageError("expected --epochs or --minutes, got both: leave one out")
    if minutes is not None and not 0.0 < minutes < float("inf"):
        raise UsageError(f"expected --minutes above 0, got {minutes}")
    try:
        from training.sweeps.plan import Choice
        from training.sweeps.session import SweepOptions, sweep_run
    except ImportError as error:
        raise MissingPackageError.of_stage("sweep", error, "train") from error
    choice = Choice(
        rows=tuple(rows or ()),
        columns=tuple(columns or ()),
        seeds=seeds,
        epochs=epochs,
        minutes=minutes,
        recipe=recipe,
    )
    sweep_run(
        SweepOptions(grid=grid, output=output, data=named_data(data or []), choice=choice, device=device)
    )


def named_data(pairs: list[str]) -> dict[str, str]:
    """Return the DATA of each name.

    Raises:
        UsageError: not NAME=DATA, or a name twice.
    """
    named: dict[str, str] = {}
    for pair in pairs:
        name, equals, data = pair.partition("=")
        if not (name and equals and data):
            raise UsageError(f"expected --data NAME=DATA, got {pair!r}")
        if name in named:
            raise UsageError(f"expected one --data for {name}, got two")
        named[name] = data
    return named
