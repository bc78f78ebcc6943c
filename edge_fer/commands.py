"""The device commands: infer and info, and those of `commands_parity` and `commands_measure`.

Knows options and messages; `inference` does infer's work.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import edge_fer
import edge_fer.commands_measure
import edge_fer.commands_parity
from edge_fer.cli_errors import guarded, notice, run_app
from edge_fer.command_options import (
    BundleArgument,
    DebugOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    ProviderOption,
    ThreadsOption,
)
from edge_fer.errors import UsageError

if TYPE_CHECKING:
    from edge_fer.bundle import Bundle

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
    from edge_fer.bundle import Bundle, default_bundle
    from edge_fer.inference import InferOptions, infer_sources, list_sources
    from edge_fer.parity.certificate import summary
    from edge_fer.parity.environment import environment
    from edge_fer.recognizer import Recognizer

    if not all(source.strip() for source in sources):
        raise UsageError("an empty SOURCE: expected a picture, a folder or a glob")
    if no_detect and detector:
        raise UsageError("--no-detect and --detector exclude each other: leave one out")
    options = InferOptions(json=as_json, csv=csv, output=output, detector=detector, detect=not no_detect)
    pictures, broken = list_sources(sources)
    if pictures:
        loaded = Bundle.load(bundle or default_bundle())
        recognizer = Recognizer.load(
            loaded,
            engine=engine,
            threads=threads,
            device=device,
            provider=provider,
            min_reliability=min_reliability,
            allow_untrained=allow_untrained,
        )
        if not as_json:
            notice(summary(loaded, str(environment()["cpu_class"])))
        del loaded  # the engine has what it needs
        broken += infer_sources(pictures, recognizer, options)
    if broken:
        raise SystemExit(1)


@app.command()
@guarded
def info(
    bundle: BundleArgument = None,
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


for part in (edge_fer.commands_parity, edge_fer.commands_measure):
    app.registered_commands.extend(part.app.registered_commands)


def _print_bundle(bundle: Bundle) -> None:
    from edge_fer.parity.certificate import bundle_reports, summary
    from edge_fer.parity.documents import cpu_class_of, gates_of
    from edge_fer.parity.environment import environment
    from edge_fer.parity.table import COLUMNS, table_rows
    from edge_fer.tables import print_table

    rows = [(key, _cell(value)) for key, value in bundle.spec.to_json().items()]
    print_table(str(bundle.path), ("key", "value"), [*rows, ("verdict", bundle.verdict)])
    members = [(name, f"{member.size:,}", member.sha256) for name, member in bundle.members.items()]
    print_table("Members", ("name", "bytes", "SHA-256"), members)
    reports = bundle_reports(bundle)
    for report in reports:
        print_table(f"Certificate of {cpu_class_of(report)}", COLUMNS, table_rows(gates_of(report)))
    notice(summary(bundle, str(environment()["cpu_class"])))


def _cell(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_cell(item) for item in value)
    return "none" if value is None or value == {} else str(value)
