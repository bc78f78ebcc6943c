"""Where an export is written: refused before minutes of work rather than after them."""

from __future__ import annotations

from pathlib import Path

from edge_fer.bundle import SPEC_FILE
from edge_fer.errors import InputError, UsageError
from edge_fer.output import check_place


def check_bundle_place(path: Path) -> None:
    """Refuse a place where no bundle can be written; `write_bundle` looks closer at what it replaces.

    Raises:
        UsageError: it has no name of its own: the root, `.` or `..`.
        InputError: something else is there, or its folder is none or is read-only.
    """
    if path.name in ("", ".."):
        raise UsageError(f"--output {path}: expected a bundle's name, such as model.fer")
    check_place(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file: name a folder that is new or a bundle")
    if path.is_dir() and any(path.iterdir()) and not (path / SPEC_FILE).is_file():
        raise InputError(f"{path} is a folder that is not a bundle: it is left alone, name another")


def check_reference_place(path: Path) -> None:
    """Refuse a place where no REFERENCE.npz can be written.

    Raises:
        UsageError: the name is none that `parity --reference` would know as reference outputs.
        InputError: a folder is there, or the place is read-only.
    """
    if path.suffix.lower() != ".npz":
        raise UsageError(f"--output {path}: expected the name of reference outputs, which ends in .npz")
    check_place(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file that is new or ends in .npz")
