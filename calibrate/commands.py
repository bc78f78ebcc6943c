"""The `calibrate` command: chooses calibration faces and writes their manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_fer.cli_errors import guarded, notice
from edge_fer.errors import BundleError, UsageError

if TYPE_CHECKING:
    from calibrate.manifest import Confidence
    from edge_fer import Recognizer

app = typer.Typer(no_args_is_help=True)


@app.command()
@guarded
def calibrate(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder per class, ferplus:DIR, a CSV.")],
    output: Annotated[Path, typer.Option(help="The manifest, a .json file.")],
    bundle: Annotated[
        str | None, typer.Option(help="A float bundle: spread the choice over its confidence, too.")
    ] = None,
    exclude: Annotated[str | None, typer.Option(help="DATA or manifest that must stay unused.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="How many faces (300).")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice.")] = 0,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Choose calibration faces, stratified and seeded, and pin them by hash; prints the manifest's path."""
    from dataclasses import replace

    from calibrate.manifest import HASH_CROP, POOL, SAMPLES, choose_faces, hash_faces
    from edge_fer.faces import read_data
    from edge_fer.output import check_place, write_text
    from edge_fer.tables import progress

    if output.suffix.lower() != ".json":
        raise UsageError(f"--output {output}: expected a manifest's name, which ends in .json")
    check_place(output)
    faces = read_data(data)
    recognizer, digest = (None, None) if bundle is None else load_float(bundle)
    crop = HASH_CROP if recognizer is None else recognizer.spec.input
    excluded: set[str] = set()
    if exclude is not None:
        unused = read_data(exclude)
        with progress("reading the faces to leave out", len(unused.faces)) as show:
            excluded = hash_faces(unused, crop, show)
    wanted = samples or SAMPLES
    with progress("choosing faces", wanted if recognizer is None else POOL * wanted) as show:
        chosen = choose_faces(
            faces,
            crop,
            samples=wanted,
            seed=seed,
            exclude=excluded,
            explicit=samples is not None,
            confidence=None if recognizer is None else reliability_by(recognizer),
            progress=show,
        )
    chosen = replace(chosen, scored_by=digest)
    write_text(output, chosen.to_json(output.parent))
    if chosen.warning:
        notice(chosen.warning)
    elif len(chosen.faces) < wanted:
        notice(f"{faces.name} has {len(chosen.faces)} faces to calibrate on, fewer than {wanted}")
    typer.echo(output)


def load_float(path: str) -> tuple[Recognizer, str]:
    """Load the bundle whose confidence is asked; return it with its digest.

    Raises:
        BundleError: it is none, its graph is quantised, or nobody trained its weights.
    """
    from edge_fer import Bundle, Recognizer

    loaded = Bundle.load(path)
    if loaded.spec.quantisation != "none":
        raise BundleError(
            f"{path}: expected a float bundle to ask for its confidence, got {loaded.spec.precision} "
            f"({loaded.spec.quantisation}); export one with --precision fp32"
        )
    if loaded.spec.untrained:
        raise BundleError(
            f"{path}: expected a trained bundle to ask for its confidence, got untrained weights; "
            "leave --bundle out to choose by class"
        )
    return Recognizer.load(loaded), loaded.digest


def reliability_by(recognizer: Recognizer) -> Confidence:
    """Return what maps crops to the model's `reliability`.

    That rather than the top probability, because it tells a face between two labels from one between many,
    and every bundle answers with it.
    """
    import numpy as np

    return lambda crops: np.array([face.reliability for face in recognizer.predict(crops)], np.float32)
