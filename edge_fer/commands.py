"""The device commands in one application: info, and those of the other commands modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

import edge_fer
import edge_fer.commands_detector
import edge_fer.commands_doctor
import edge_fer.commands_infer
import edge_fer.commands_measure
import edge_fer.commands_parity
import edge_fer.commands_serve
from edge_fer.cli_errors import guarded, notice, run_app
from edge_fer.command_options import BundleArgument, DebugOption, JsonOption

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


for part in (
    edge_fer.commands_infer,
    edge_fer.commands_parity,
    edge_fer.commands_measure,
    edge_fer.commands_doctor,
    edge_fer.commands_serve,
):
    app.registered_commands.extend(part.app.registered_commands)
app.add_typer(edge_fer.commands_detector.app, name="detector")


def _print_bundle(bundle: Bundle) -> None:
    from edge_fer.parity.certificate import bundle_reports, summary
    from edge_fer.parity.documents import gates_of, place_of
    from edge_fer.parity.environment import environment
    from edge_fer.parity.table import COLUMNS, table_rows
    from edge_fer.tables import print_table

    rows = [(key, _cell(value)) for key, value in bundle.spec.to_json().items()]
    print_table(str(bundle.path), ("key", "value"), [*rows, ("verdict", bundle.verdict)])
    members = [(name, f"{member.size:,}", member.sha256) for name, member in bundle.members.items()]
    print_table("Members", ("name", "bytes", "SHA-256"), members)
    reports = bundle_reports(bundle)
    for report in reports:
        print_table(f"Certificate of {place_of(report)}", COLUMNS, table_rows(gates_of(report)))
    notice(summary(bundle, str(environment()["cpu_class"])))


def _cell(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_cell(item) for item in value)
    return "none" if value is None or value == {} else str(value)
