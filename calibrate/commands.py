"""The `calibrate` command: chooses calibration faces and writes their manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_fer.cli_errors import guarded, notice
from edge_fer.errors import UsageError

app = typer.Typer(no_args_is_help=True)


@app.command()
@guarded
def calibrate(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder per class, ferplus:DIR, a CSV.")],
    output: Annotated[Path, typer.Option(help="The manifest, a .json file.")],
    exclude: Annotated[str | None, typer.Option(help="DATA or manifest that must stay unused.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="How many faces (300).")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice.")] = 0,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Choose calibration faces, stratified and seeded, and pin them by hash; prints the manifest's path."""
    from calibrate.manifest import HASH_CROP, SAMPLES, choose_faces
    from edge_fer.faces import face_hash, load_crops, read_data
    from edge_fer.output import write_text
    from edge_fer.tables import progress

    if output.suffix.lower() != ".json":
        raise UsageError(f"--output {output}: expected a manifest's name, which ends in .json")
    faces = read_data(data)
    excluded = set()
    if exclude is not None:
        unused = read_data(exclude)
        with progress("reading the faces to leave out", len(unused.faces)) as show:
            excluded = {face_hash(crop) for crop in load_crops(unused, HASH_CROP, show)}
    wanted = samples or SAMPLES
    with progress("choosing faces", wanted) as show:
        chosen = choose_faces(
            faces,
            HASH_CROP,
            samples=wanted,
            seed=seed,
            exclude=excluded,
            explicit=samples is not None,
            progress=show,
        )
    write_text(output, chosen.to_json(output.parent))
    if chosen.warning:
        notice(chosen.warning)
    elif len(chosen.faces) < wanted:
        notice(f"{faces.name} has {len(chosen.faces)} faces to calibrate on, fewer than {wanted}")
    typer.echo(output)
