"""The commands `export` and `certify`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_fer.cli_errors import guarded, notice
from edge_fer.errors import GateFailed, MissingPackageError, UsageError

if TYPE_CHECKING:
    from export.certify import Exported
    from export.measure import Judged
    from export.options import ExportOptions

app = typer.Typer(no_args_is_help=True)


@app.command()
@guarded
def export(
    checkpoint: Annotated[
        str | None, typer.Argument(help="A checkpoint, or a network's name for seeded, untrained weights.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="onnx, openvino or tflite; --reference-only needs none.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Default MODEL-TARGET-PRECISION.fer here.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16, int8 or auto.")] = "fp32",
    calibration_data: Annotated[str | None, typer.Option(help="DATA or a manifest of `calibrate`.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Calibration faces (300).")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of calibration faces.")] = 0,
    recipe: Annotated[
        str | None, typer.Option(help="How int8 is made: dynamic, or KEY=VALUE,... (docs/int8.md).")
    ] = None,
    stability: Annotated[
        bool, typer.Option("--stability", help="Calibrate on two halves, too, and compare their answers.")
    ] = False,
    attribution: Annotated[bool, typer.Option("--attribution", help="Say which block costs labels.")] = False,
    embedding: Annotated[bool, typer.Option("--embedding", help="Keep `embedding` as an output.")] = False,
    parity_data: Annotated[str | None, typer.Option(help="DATA the bundle is judged on.")] = None,
    golden: Annotated[str | None, typer.Option(help="Golden samples: parity or synthetic.")] = None,
    card: Annotated[Path | None, typer.Option(readable=False, help="Model card for the bundle.")] = None,
    keep_failed: Annotated[
        bool, typer.Option("--keep-failed", help="Write the bundle, marked, even if a gate failed.")
    ] = False,
    reference_only: Annotated[
        bool, typer.Option("--reference-only", help="Only the float outputs on --parity-data, to R.npz.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 3 when undecided, too.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Turn a checkpoint into a bundle that carries its certificate; prints the bundle's path."""
    if golden not in (None, "parity", "synthetic"):
        raise UsageError(f"--golden: expected parity or synthetic, got {golden!r}")
    try:
        from export.certify import ExportOptions  # and with it whatever every target needs
    except ImportError as error:
        raise MissingPackageError.of_stage("export", error, "export") from error
    options = ExportOptions(
        checkpoint=checkpoint,
        target=target or ("onnx" if reference_only else "none"),
        precision=precision,
        output=output,
        calibration_data=calibration_data,
        samples=samples,
        seed=seed,
        recipe=recipe,
        stability=stability,
        attribution=attribution,
        embedding=embedding,
        parity_data=parity_data,
        golden=golden,
        card=card,
    )
    if reference_only:
        typer.echo(write_reference(options))
        return
    finish(certify_or_tell(options), keep_failed=keep_failed, strict=strict)


@app.command("certify")
@guarded
def certify_bundle(
    bundle: Annotated[Path, typer.Argument(readable=False, help="A bundle with a certificate of its own.")],
    certificates: Annotated[
        list[Path],
        typer.Argument(metavar="REPORT...", readable=False, help="parity.json files made on other machines."),
    ],
    output: Annotated[
        Path | None, typer.Option(readable=False, help="The bundle to write; BUNDLE itself when left out.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Put reports of other classes of processors into a bundle's certificate; prints the bundle's path."""
    from edge_fer.parity.certificate import bundle_reports
    from edge_fer.parity.documents import place_of
    from export.certificates import add_certificates

    written = add_certificates(bundle, certificates, output or bundle)
    typer.echo(output or bundle)
    notice(f"certified on {', '.join(place_of(report) for report in bundle_reports(written))}")


def finish(exported: Exported, *, keep_failed: bool, strict: bool) -> None:
    """Print the gates and write the bundle, or only the report where a gate failed."""
    from edge_fer.bundle import CERTIFICATE_FILE, write_bundle
    from edge_fer.output import write_text
    from edge_fer.parity.table import COLUMNS, exit_code, table_rows
    from edge_fer.tables import print_table

    report, path = exported.report, exported.path
    print_table(f"Parity: {report.verdict}", COLUMNS, table_rows(report.gates))
    for note in exported.notes:
        notice(note)
    if report.verdict == "failed" and not keep_failed:
        beside = path.with_suffix(".parity.json")
        write_text(beside, exported.members[CERTIFICATE_FILE].decode())
        raise GateFailed(
            f"{path} was not written: a gate failed, see {beside}; --keep-failed writes it, marked as failed"
        )
    write_bundle(path, replace(exported.spec, failed=report.verdict == "failed"), exported.members)
    if report.verdict == "failed":
        notice(f"{path} was kept although a gate failed; loading it warns")
    if report.verdict == "undecided" and exported.spec.untrained:
        notice("undecided: untrained weights have no answers to judge; use it for benchmarks and tests")
    elif report.verdict == "undecided":
        notice("undecided: too few faces for a verdict, see the table; give more with --parity-data")
    typer.echo(path)
    code = exit_code(report.verdict, strict)
    if code:
        raise SystemExit(code)


def certify_or_tell(options: ExportOptions) -> Exported:
    """Export and measure; where no rung of the ladder passes, leave its report beside the missing bundle."""
    from export.certify import certify
    from export.ladder import NoRungPasses

    try:
        return certify(options)
    except NoRungPasses as error:
        raise GateFailed(f"{error}; see {write_rungs(options, error.rungs)}") from error


def write_rungs(options: ExportOptions, rungs: Sequence[Judged]) -> Path:
    """Write the certificates of all rungs to one file beside the bundle that is not written."""
    from edge_fer.output import write_text
    from export.certify import bundle_path

    beside = bundle_path(options, rungs[0].spec.model).with_suffix(".parity.json")
    reports = [{"rung": one.rung, **one.report.to_json(), **one.notes} for one in rungs]
    text = json.dumps({"verdict": "failed", "rungs": reports}, indent=2, allow_nan=False)
    write_text(beside, text + "\n")
    return beside


def write_reference(options: ExportOptions) -> Path:
    """Write the float network's outputs on the parity data to one .npz file."""
    from edge_fer.faces import read_data
    from export.data import load_parity_set
    from export.options import ExportOptions, check_options
    from export.place import check_reference_place
    from export.source import read_source
    from training.models.checkpoint import replace_file

    if options.parity_data is None or options.output is None:
        raise UsageError("--reference-only needs --parity-data D and --output R.npz")
    check_options(options)
    alone = ExportOptions(
        checkpoint=options.checkpoint,
        target=options.target,
        output=options.output,
        parity_data=options.parity_data,
        embedding=options.embedding,
    )
    if options != alone:
        raise UsageError("--reference-only: expected --parity-data, --output and --embedding beside it alone")
    check_reference_place(options.output)
    source = read_source(options.checkpoint)
    parity = load_parity_set(read_data(options.parity_data), source, embedding=options.embedding)
    assert parity is not None
    replace_file(options.output, parity.reference.to_bytes())
    return options.output
