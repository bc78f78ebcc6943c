"""The edge of the command line: commands are `guarded`, so what goes wrong becomes one line and an exit code.

Knows exceptions and exit codes. Does not know any command.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TextIO, TypeVar

import typer

from edge_fer.errors import EdgeFerError
from edge_fer.stopping import Terminated

INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
TERMINATED = 143  # 128 + SIGTERM
_FAILED = 1
_USAGE = 2

_P = ParamSpec("_P")
_R = TypeVar("_R")


def guarded(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorate a command so that an error becomes one line on standard error and an exit code.

    The command's own `debug` parameter, if it has one, shows the traceback first.
    """

    @functools.wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                result = command(*args, **kwargs)
                if sys.stdout is not None:  # closed by the caller
                    sys.stdout.flush()  # a full disk shows here, not after the exit code is decided
            except (typer.Exit, typer.Abort, typer.BadParameter):
                raise
            except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (this is the command line's edge)
                if kwargs.get("debug"):
                    traceback.print_exc()
                code, text = explain(error)
                _say("" if code in (INTERRUPTED, TERMINATED) else "error: ", text)
                raise SystemExit(code) from None
        return result

    return run


def run_app(app: typer.Typer) -> None:
    """Run an application as a process: what its parser refuses becomes one line, too, and Ctrl-C is told."""
    _hold_standard_streams()
    try:
        code = app(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        _say("", "interrupted")
        code = INTERRUPTED
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the whole help
            error.show()  # type: ignore[attr-defined]
        else:
            said = error.format_message()
            _say("error: ", f"{said}{'' if said.endswith(('.', '?')) else '.'} See --help.")
        code = _USAGE
    raise SystemExit(code)


def end_at_once(error: BaseException) -> None:
    """End the process as this error would, without the interpreter's tidying up.

    A thread that is inside OpenCV when Python takes its world apart would abort the process.
    """
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else _FAILED
    else:
        code, text = explain(error)
        _say("", text)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(code)


def explain(error: BaseException) -> tuple[int, str]:
    """Return the exit code and the one line for an exception that reached the edge."""
    if isinstance(error, EdgeFerError):
        return error.exit_code, str(error)
    if isinstance(error, Terminated):
        return TERMINATED, "terminated"
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted"
    if isinstance(error, BrokenPipeError):
        return _FAILED, "the reader of the output went away before the end"
    if isinstance(error, MemoryError):
        return _FAILED, "out of memory: close other programs, or give smaller pictures or a smaller batch"
    if isinstance(error, OSError):
        return _FAILED, _explain_os_error(error)
    return _FAILED, f"internal error, {type(error).__name__}: {error}; --debug shows where, please report it"


def complain(text: object) -> None:
    """Print one line `error: ...` on standard error."""
    _say("error: ", text)


def notice(text: object) -> None:
    """Print one line `note: ...` on standard error."""
    _say("note: ", text)


def one_line(text: object) -> str:
    """Return the text on one line, with characters that could steer a terminal written as escapes."""
    joined = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in joined)


def _say(kind: str, text: object) -> None:
    try:
        sys.stderr.write(f"{kind}{one_line(text)}\n")
        sys.stderr.flush()
    except OSError:
        pass  # nobody listens; the exit code still tells


def _hold_standard_streams() -> None:
    """Put nothing where the caller closed a standard stream: the next file would get its number.

    Libraries write to those numbers, and into that file. Standard error gets a stream, too; without it every
    line for people would be a failure of its own.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (as long as the process)


def _explain_os_error(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    advice = {
        errno.ENOSPC: "free some space or choose another place",
        errno.EDQUOT: "free some space or choose another place",
        errno.EROFS: "choose another place",
        errno.EACCES: "check its permissions or choose another place",
        errno.EPERM: "check its permissions or choose another place",
    }.get(error.errno or 0)
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{reason[:1].lower()}{reason[1:]}" + (f"; {advice}" if advice else "")


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    _say("warning: ", message)
