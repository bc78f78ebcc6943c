"""The `train` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_fer.cli_errors import guarded
from edge_fer.errors import MissingPackageError

app = typer.Typer(no_args_is_help=True)


@app.command()
@guarded
def train(
    recipe: Annotated[Path, typer.Option(help="TOML recipe, see training/recipes.")],
    data: Annotated[
        str,
        typer.Option(
            help="LAYOUT:DIR (ferplus, rafdb, …), or a folder with train/ and valid/, a folder per class each."
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
        typer.Option(help="Checkpoint to learn from, for a [distillation]; several: their mean."),
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
        raise MissingPackageError(
            f"train needs the package {error.name}: pip install -c constraints.txt -e '.[train]'"
        ) from error
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
