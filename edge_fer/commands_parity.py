"""The parity command: bundles against one reference, or reports made elsewhere, as one report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_fer.cli_errors import guarded, notice
from edge_fer.command_options import (
    DebugOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    ProviderOption,
    ThreadsOption,
)
from edge_fer.errors import BundleError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_fer.engines import EngineOptions
    from edge_fer.faces import FaceSet
    from edge_fer.parity.comparison import Report
    from edge_fer.parity.documents import Json
    from edge_fer.parity.report import Faces
    from edge_fer.preprocess import CropSpec
    from edge_fer.samples import Reference

app = typer.Typer(no_args_is_help=True)


@app.command()
@guarded
def parity(
    bundles: Annotated[
        list[Path],
        typer.Argument(
            metavar="BUNDLE…", readable=False, help="Bundles; with --merge also parity.json files."
        ),
    ],
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference", readable=False, help="Another bundle or a REFERENCE.npz to compare with."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="The faces: a folder per class, ferplus:DIR, a CSV.")
    ] = None,
    slices: Annotated[
        list[str] | None,
        typer.Option("--slice", metavar="COLUMN", help="Compare every value of a column of the CSV, too."),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Join the reports of parity.json files and bundles; runs nothing.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 3 when undecided, too.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", readable=False, help="Write parity.json, parity.md and parity.html to this folder."
        ),
    ] = None,
    as_json: JsonOption = False,
    engine: EngineOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    provider: ProviderOption = None,
    debug: DebugOption = False,
) -> None:
    """Prove on this machine that bundles answer as their float checkpoint did."""
    from edge_fer.engines import EngineOptions
    from edge_fer.output import check_place, print_json
    from edge_fer.parity.certificate import merge as join
    from edge_fer.parity.certificate import read_reports
    from edge_fer.parity.documents import document

    if output is not None:
        check_place(output / "parity.json")
    options = EngineOptions(engine=engine, threads=threads, device=device, provider=provider)
    if merge:
        if data or reference or slices or options != EngineOptions():
            raise UsageError("--merge runs nothing: give it with --output, --strict and --json alone")
        reports, pictures = join(one for path in bundles for one in read_reports(path)), dict[str, bytes]()
    else:
        reports, pictures = _compare(bundles, reference, data, slices or [], options)
    for report in reports:
        _print_report(report, with_data=data is not None or merge)
    if output is not None:
        _write(output, reports, pictures)
    if as_json:
        print_json(document(reports))
    _end(reports, strict)


def _end(reports: Sequence[Json], strict: bool) -> None:
    """Leave with the exit code of the worst verdict."""
    from edge_fer.parity.documents import joint_verdict
    from edge_fer.parity.table import exit_code

    verdict = joint_verdict(reports)
    if len(reports) > 1:
        notice(f"verdict of all: {verdict}")
    code = exit_code(verdict, strict)
    if code:
        raise SystemExit(code)


def _compare(
    paths: Sequence[Path],
    other: Path | None,
    data: str | None,
    columns: Sequence[str],
    options: EngineOptions,
) -> tuple[list[Json], dict[str, bytes]]:
    """Run every bundle; return the reports, and the pictures of their worst faces by hash."""
    from edge_fer.bundle import Bundle
    from edge_fer.engines import load_engine
    from edge_fer.faces import column_values, label_numbers
    from edge_fer.parity.certificate import merge
    from edge_fer.parity.report import Faces, run_parity
    from edge_fer.tables import progress

    if columns and data is None:
        raise UsageError("--slice needs --data: a CSV with the columns file, label and the one to slice by")
    loaded = [Bundle.load(path) for path in paths]
    faces = None if data is None else _read_faces(data)
    values = {} if faces is None else {column: column_values(faces, column) for column in columns}
    shared = None if other is None else _read_reference(other)
    crops: dict[CropSpec, NDArray[np.uint8]] = {}
    reports: list[Json] = []
    pictures: dict[str, bytes] = {}
    for bundle in loaded:
        if faces is not None and bundle.spec.input not in crops:
            crops[bundle.spec.input] = _load_crops(faces, bundle.spec.input)
        reference = bundle.reference() if shared is None else shared
        labels = None if faces is None else label_numbers(faces, bundle.spec.labels)
        given = Faces(reference, crops.get(bundle.spec.input), values, labels)
        total = 0 if given.crops is None else len(given.crops)
        engine = load_engine(bundle, options)
        with progress(f"comparing {bundle.path.name}", total) as show:
            report = run_parity(bundle, engine, given, progress=show)
        reports.append(report.to_json())
        pictures |= _worst_pictures(report, given)
    return merge(reports), pictures


def _read_reference(other: Path) -> Reference:
    """Return the reference outputs of another bundle, or of a file that holds them alone."""
    from edge_fer.bundle import Bundle
    from edge_fer.samples import read_reference

    if other.suffix.lower() == ".npz":
        return read_reference(other)
    found = Bundle.load(other).reference()
    if found is None:
        raise BundleError(f"{other} holds no reference outputs: name another bundle or a REFERENCE.npz")
    return found


def _read_faces(data: str) -> FaceSet:
    from edge_fer.faces import read_data

    faces = read_data(data)
    if faces.note:
        notice(f"{faces.name}: {faces.note}")
    return faces


def _load_crops(faces: FaceSet, spec: CropSpec) -> NDArray[np.uint8]:
    from edge_fer.faces import load_crops
    from edge_fer.tables import progress

    with progress("reading", len(faces.faces)) as show:
        return load_crops(faces, spec, show)


def _worst_pictures(report: Report, faces: Faces) -> dict[str, bytes]:
    from edge_fer.images import encode_png

    worst = report.details.get("worst")
    if faces.crops is None or not isinstance(worst, list):
        return {}
    return {str(face["hash"]): encode_png(faces.crops[face["face"]]) for face in worst}


def _print_report(report: Json, with_data: bool) -> None:
    from edge_fer.parity.documents import gates_of, name_of, place_of
    from edge_fer.parity.gates import SAMPLED
    from edge_fer.parity.render.reading import Value
    from edge_fer.parity.render.summary import SLICE_COLUMNS, slice_rows
    from edge_fer.parity.table import COLUMNS, table_rows
    from edge_fer.tables import print_table

    gates = gates_of(report)
    print_table(f"Parity of {name_of(report)}, {place_of(report)}", COLUMNS, table_rows(gates))
    for column, rows in slice_rows(Value(report)):
        print_table(f"Slices by {column}", (column, *SLICE_COLUMNS), rows)
    missed = [gate.name for gate in gates if gate.verdict == "not run" and gate.name in SAMPLED]
    if missed and not with_data:
        notice(f"not run without --data DATA: {'; '.join(missed)}")
    notice(f"verdict: {report['verdict']}{', size only' if report['size_only'] else ''}")


def _write(folder: Path, reports: Sequence[Json], pictures: Mapping[str, bytes]) -> None:
    """Write the report in its three forms; parity.json is the authority."""
    from edge_fer.output import write_text
    from edge_fer.parity.documents import document, text_of
    from edge_fer.parity.render.html import render_html
    from edge_fer.parity.render.markdown import render_markdown

    write_text(folder / "parity.json", text_of(document(reports)))
    write_text(folder / "parity.md", render_markdown(reports))
    write_text(folder / "parity.html", render_html(reports, pictures))
    notice(f"written: {folder / 'parity.html'}, and parity.json and parity.md beside it")
    if pictures:
        notice(f"parity.html shows {len(pictures)} of the faces: mind who sees it")
