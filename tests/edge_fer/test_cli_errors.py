"""The edge of the command line: any exception is one line on standard error and the right exit code."""

from __future__ import annotations

import errno
import warnings

import pytest
import typer
from typer.testing import CliRunner

from edge_fer.bundle import BundleWarning
from edge_fer.cli_errors import explain, guarded, one_line
from edge_fer.errors import BundleError, EdgeFerError, GateFailed, MissingPackageError, UsageError

CASES: list[tuple[BaseException, int, str]] = [
    (EdgeFerError("expected this,\ngot that"), 1, "error: expected this, got that"),
    (BundleError("changed"), 1, "error: changed"),
    (UsageError("--a and --b exclude each other"), 2, "error: --a and --b exclude each other"),
    (GateFailed("accuracy"), 3, "error: accuracy"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, "error: the reader of the output went away"),
    (MemoryError(), 1, "error: out of memory"),
    (OSError(errno.ENOSPC, "No space left on device"), 1, "error: no space left on device; free some space"),
    (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 1, "error: /x/y: permission denied; check"),
    (OSError("strange"), 1, "error: strange"),
    (
        FileNotFoundError(errno.ENOENT, "No such file or directory", "z"),
        1,
        "error: z: no such file or directory",
    ),
    (ZeroDivisionError("division by zero"), 1, "error: internal error, ZeroDivisionError: division by zero"),
    (SystemExit(7), 7, ""),
    (typer.Exit(4), 4, ""),
]


def test_a_package_that_is_there_but_does_not_load_is_not_called_missing() -> None:
    install = ": pip install -c constraints.txt -e '.[export]'"
    absent = ModuleNotFoundError("No module named 'nncf'", name="nncf")
    said = MissingPackageError.of_stage("export", absent, "export")
    assert str(said) == "export needs the package nncf" + install
    for error in (
        ImportError("libGL.so.1: cannot open\nshared object file"),
        ImportError("no name f", name="g"),
    ):
        text = str(MissingPackageError.of_stage("export", error, "export"))
        reason = str(error).partition("\n")[0]
        assert text == f"export needs a package that does not load here ({reason})" + install


def command(error: BaseException) -> typer.Typer:
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    @guarded
    def fail(debug: bool = False) -> None:
        """Fail."""
        raise error

    return app


@pytest.mark.parametrize(("error", "code", "line"), CASES, ids=[type(case[0]).__name__ for case in CASES])
def test_an_error_is_one_line_and_its_exit_code(error: BaseException, code: int, line: str) -> None:
    result = CliRunner().invoke(command(error))
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith(line) and len(result.stderr.splitlines()) == (1 if line else 0)
    assert "Traceback" not in result.stderr


def test_debug_shows_the_traceback_and_keeps_the_line_and_the_code() -> None:
    result = CliRunner().invoke(command(BundleError("changed")), ["--debug"])
    assert result.exit_code == 1
    assert "Traceback" in result.stderr and result.stderr.endswith("error: changed\n")


def test_a_guarded_command_keeps_its_options_and_its_value() -> None:
    @guarded
    def double(number: int) -> int:
        """Double."""
        return 2 * number

    assert double(4) == 8
    assert double.__name__ == "double" and double.__doc__ == "Double."


def test_a_warning_is_one_line() -> None:
    app = typer.Typer()

    @app.command()
    @guarded
    def warn() -> None:
        """Warn."""
        warnings.warn("this bundle failed", BundleWarning, stacklevel=1)

    result = CliRunner().invoke(app)
    assert (result.exit_code, result.stderr) == (0, "warning: this bundle failed\n")


def test_text_cannot_steer_the_terminal() -> None:
    assert one_line("a\n b\t c\x1b[31m\u202e\udcff") == "a b c\\x1b[31m\\u202e\\udcff"


def test_the_codes_are_those_of_the_design() -> None:
    assert [
        explain(error)[0] for error in (EdgeFerError(), UsageError(), GateFailed(), KeyboardInterrupt())
    ] == [
        1,
        2,
        3,
        130,
    ]
