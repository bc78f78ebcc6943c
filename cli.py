"""Every command of a checkout: those of the device, which `edge-fer` has too, and the stages'. No logic.

Listing a stage costs nothing: no commands module imports torch or onnx at top level. A command whose packages
are missing says which extra installs them.
"""

from __future__ import annotations

import typer

import calibrate.commands
import edge_fer.cli_errors
import edge_fer.commands
import export.commands
import training.commands

app = typer.Typer(
    name="cli.py",
    help="Train, export, calibrate, prove and run facial-expression networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.registered_callback = edge_fer.commands.app.registered_callback  # --version
for module in (training.commands, calibrate.commands, export.commands, edge_fer.commands):
    app.registered_commands.extend(module.app.registered_commands)
    app.registered_groups.extend(module.app.registered_groups)


def main() -> None:
    """Run the command that the arguments name."""
    edge_fer.cli_errors.run_app(app)


if __name__ == "__main__":
    main()
