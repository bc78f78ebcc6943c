"""The device command that installs a face detector. Knows options and messages; `detectors.install` works."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from edge_fer.cli_errors import guarded, notice
from edge_fer.command_options import DebugOption

app = typer.Typer(help="Get a better face detector than the built-in one.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass  # keeps `install` a command of its own: typer would fold a single one into the group


@app.command()
@guarded
def install(
    url: Annotated[
        str | None,
        typer.Option("--url", metavar="U", help="Address or path of YuNet's ONNX file; OpenCV's release."),
    ] = None,
    sha256: Annotated[
        str | None,
        typer.Option("--sha256", metavar="H", help="What the file has to be; the hash of OpenCV's release."),
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Put the face detector YuNet into the user's cache, checked; it is the default from then on."""
    from edge_fer.detectors.download import shown
    from edge_fer.detectors.install import YUNET_URL
    from edge_fer.detectors.install import install as install_yunet

    notice(f"getting {shown(url or YUNET_URL)}")
    with _progress() as show:
        path = install_yunet(url, sha256, show)
    notice("YuNet is the default detector now; --detector cascade takes the built-in one")
    typer.echo(path)


@contextmanager
def _progress() -> Iterator[Callable[[int, int | None], None]]:
    """Show the bytes that have come, on a terminal; they come in an instant or not at all elsewhere."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from edge_fer.tables import console

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console(), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("YuNet", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
