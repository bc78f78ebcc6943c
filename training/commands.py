"""The `train` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_fer.cli_errors import guarded
from edge_fer.errors import InputError, MissingPackageError

app = typer.Typer(no_args_is_help=True)


@app.command()
@guarded
def train(
    recipe: Annotated[Path, typer.Option(help="TOML recipe, see training/recipes.")],
    data: Annotated[
        str, typer.Option(help="ferplus:DIR, or a folder with train/ and valid/ (a folder per class each).")
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
        )
    )


def split_data(data: str) -> tuple[str, str]:
    """Return the DATA of the training and of the validation split.

    Raises:
        InputError: neither the FER+ layout nor a folder with train/ and valid/.
    """
    if data.startswith("ferplus:"):
        return f"{data}:train", f"{data}:valid"
    root = Path(data)
    if (root / "train").is_dir() and (root / "valid").is_dir():
        return str(root / "train"), str(root / "valid")
    raise InputError(f"{data}: expected ferplus:DIR or a folder that holds train/ and valid/")
