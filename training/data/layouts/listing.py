"""What lists of pictures have in common: lines, which files are there, names that stay in the folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_fer.errors import InputError


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file.

    Raises:
        InputError: missing, unreadable or not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected UTF-8 text: {error}") from None


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines of a text file that are not empty, stripped, each with its number from 1.

    Raises:
        InputError: missing, unreadable or not text.
    """
    lines = enumerate(read_text(path).split("\n"), 1)
    return [(number, stripped) for number, line in lines if (stripped := line.strip())]


def folder_names(folder: Path) -> list[str]:
    """Return the names of what is in a folder, sorted, hidden ones left out.

    Raises:
        InputError: missing or unreadable.
    """
    try:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror or error}") from None


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, hidden ones left out.

    Raises:
        InputError: missing or unreadable.
    """
    return [name for name in folder_names(folder) if (folder / name).is_dir()]


def find_folder(root: Path, *candidates: str) -> Path:
    """Return the first of the places under `root` that is a folder.

    Raises:
        InputError: none is.
    """
    for candidate in candidates:
        if (root / candidate).is_dir():
            return root / candidate
    expected = " or ".join(name for name in candidates if name != ".")
    raise InputError(f"{root}: expected the folder {expected}, got none")


def plain_name(name: str, where: str) -> str:
    """Return a file name of a list, which must not lead out of the list's folder.

    Raises:
        InputError: it has a folder in it, or is no name.
    """
    if not name or name in (".", "..") or any(character in name for character in "/\\\0"):
        raise InputError(f"{where}: expected the name of a picture without a folder, got {name!r}")
    return name


def check_present(folder: Path, names: Sequence[str]) -> None:
    """Check that a folder has all of these files, with one listing and not one question per file.

    Raises:
        InputError: some are missing; the text says how many, and the first.
    """
    present = set(folder_names(folder))
    missing = [name for name in names if name not in present]
    if missing:
        raise InputError(f"{folder}: {len(missing)} of {len(names)} pictures missing, first {missing[0]!r}")
