"""The device commands: infer, parity and info, and those of `commands_measure`.

Knows options and messages; `inference` does infer's work.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import edge_fer
import edge_fer.commands_measure
from edge_fer.cli_errors import guarded, notice, run_app
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

    from edge_fer.bundle import Bundle
    from edge_fer.parity.report import Report
    from edge_fer.preprocess import CropSpec
    from edge_fer.samples import Reference

app = typer.Typer(
    name="edge-fer",
    help="Facial expression recognition on small computers, from bundles that prove themselves.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# readable=False: typer would call an unreadable path wrong usage; reading it gives the better line.
BundleOption = Annotated[
    Path | None,
    typer.Option("--bundle", readable=False, help="A bundle, folder or zip; the embedded one when left out."),
]


def main() -> None:
    """Run the device commands: the entry of the console script."""
    run_app(app)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"edge-fer {edge_fer.__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
@guarded
def infer(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE", help="Pictures, folders or globs.")],
    bundle: BundleOption = None,
    as_json: JsonOption = False,
    csv: Annotated[
        Path | None, typer.Option("--csv", readable=False, help="Write one row per face to this file.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", readable=False, help="Write annotated pictures to this folder.")
    ] = None,
    detector: Annotated[
        str | None, typer.Option("--detector", help="cascade, or the path of a YuNet .onnx file.")
    ] = None,
    no_detect: Annotated[bool, typer.Option("--no-detect", help="Every picture is one face crop.")] = False,
    min_reliability: Annotated[
        str | None, typer.Option("--min-reliability", metavar="X|auto", help="Abstain below this, 0 to 1.")
    ] = None,
    engine: EngineOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    provider: ProviderOption = None,
    allow_untrained: Annotated[
        bool, typer.Option("--allow-untrained", help="Accept a bundle with untrained weights.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Recognise the expression of every face in pictures."""
    from edge_fer.inference import InferOptions, infer_sources, list_sources
    from edge_fer.recognizer import Recognizer

    if not all(source.strip() for source in sources):
        raise UsageError("an empty SOURCE: expected a picture, a folder or a glob")
    if no_detect and detector:
        raise UsageError("--no-detect and --detector exclude each other: leave one out")
    options = InferOptions(json=as_json, csv=csv, output=output, detector=detector, detect=not no_detect)
    pictures, broken = list_sources(sources)
    if pictures:
        recognizer = Recognizer.load(
            bundle,
            engine=engine,
            threads=threads,
            device=device,
            provider=provider,
            min_reliability=min_reliability,
            allow_untrained=allow_untrained,
        )
        broken += infer_sources(pictures, recognizer, options)
    if broken:
        raise SystemExit(1)


@app.command()
@guarded
def parity(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", readable=False, help="The bundle, folder or zip.")
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
    strict: Annotated[bool, typer.Option("--strict", help="Exit 3 when undecided, too.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", readable=False, help="Write parity.json to this folder.")
    ] = None,
    as_json: JsonOption = False,
    engine: EngineOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    provider: ProviderOption = None,
    debug: DebugOption = False,
) -> None:
    """Prove on this machine that a bundle answers as its float checkpoint did."""
    from edge_fer.bundle import Bundle
    from edge_fer.engines import EngineOptions, load_engine
    from edge_fer.output import print_json, write_text
    from edge_fer.parity.report import exit_code, run_parity
    from edge_fer.tables import progress

    loaded = Bundle.load(bundle)
    expected = _reference(loaded, reference)
    options = EngineOptions(engine=engine, threads=threads, device=device, provider=provider)
    loaded_engine = load_engine(loaded, options)
    crops = None if data is None else _load_faces(data, loaded.spec.input)
    with progress("comparing", 0 if crops is None else len(crops)) as show:
        report = run_parity(
            bundle=loaded, engine=loaded_engine, reference=expected, crops=crops, progress=show
        )
    _print_report(report, with_data=data is not None)
    if output is not None:
        write_text(output / "parity.json", json.dumps(report.to_json(), indent=2, allow_nan=False) + "\n")
    if as_json:
        print_json(report.to_json())
    code = exit_code(report.verdict, strict)
    if code:
        raise SystemExit(code)


@app.command()
@guarded
def info(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            metavar="[BUNDLE]",
            readable=False,
            help="A bundle, folder or zip; the embedded one when left out.",
        ),
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show what is in a bundle and its verdict."""
    from edge_fer.bundle import Bundle, default_bundle
    from edge_fer.output import print_json

    loaded = Bundle.load(bundle or default_bundle())
    if as_json:
        print_json({**loaded.to_json(), "verdict": loaded.verdict})
    else:
        _print_bundle(loaded)


app.registered_commands.extend(edge_fer.commands_measure.app.registered_commands)


def _reference(bundle: Bundle, other: Path | None) -> Reference | None:
    """Return the reference outputs to compare with: of another bundle, of a file, or of the bundle itself."""
    if other is None:
        return bundle.reference()
    from edge_fer.bundle import Bundle
    from edge_fer.samples import read_reference

    if other.suffix.lower() == ".npz":
        return read_reference(other)
    found = Bundle.load(other).reference()
    if found is None:
        raise BundleError(f"{other} holds no reference outputs: name another bundle or a REFERENCE.npz")
    return found


def _load_faces(data: str, spec: CropSpec) -> NDArray[np.uint8]:
    from edge_fer.faces import load_crops, read_data
    from edge_fer.tables import progress

    faces = read_data(data)
    if faces.note:
        notice(f"{faces.name}: {faces.note}")
    with progress("reading", len(faces.faces)) as show:
        return load_crops(faces, spec, show)


def _print_report(report: Report, with_data: bool) -> None:
    from edge_fer.parity.report import COLUMNS, table_rows
    from edge_fer.tables import print_table

    print_table(f"Parity of {report.bundle.get('model', '')}", COLUMNS, table_rows(report.gates))
    missed = [gate.name for gate in report.gates if gate.verdict == "not run"]
    if missed and not with_data:
        notice(f"not run without --data DATA: {'; '.join(missed)}")
    notice(f"verdict: {report.verdict}")


def _print_bundle(bundle: Bundle) -> None:
    from edge_fer.parity.report import COLUMNS, Gate, table_rows
    from edge_fer.tables import print_table

    rows = [(key, _cell(value)) for key, value in bundle.spec.to_json().items()]
    print_table(str(bundle.path), ("key", "value"), [*rows, ("verdict", bundle.verdict)])
    members = [(name, f"{member.size:,}", member.sha256) for name, member in bundle.members.items()]
    print_table("Members", ("name", "bytes", "SHA-256"), members)
    certificate = bundle.certificate()
    gates = None if certificate is None else certificate.get("gates")
    if certificate is None or not isinstance(gates, list):
        notice("the bundle has no certificate")
        return
    try:
        found = [Gate.from_json(gate) for gate in gates if isinstance(gate, Mapping)]
    except ValueError as error:
        raise BundleError(f"{bundle.path}: parity.json is not usable: {error}") from error
    print_table(f"Certificate, {certificate.get('faces', 0)} faces", COLUMNS, table_rows(found))


def _cell(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_cell(item) for item in value)
    return "none" if value is None or value == {} else str(value)
