"""Where an installed YuNet is: a file in the user's cache, and the record of what it has to be.

The folder holds `yunet-HASH.onnx` and `yunet.sha256`, a line as sha256sum writes it, which names that file.
Fetches nothing.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from edge_fer.errors import DetectorError
from edge_fer.output import write_text

INSTALL_COMMAND = "edge-fer detector install"
_RECORD = "yunet.sha256"
_RECORD_LINE = re.compile(r"([0-9a-f]{64})  (yunet-[0-9a-f]{16}\.onnx)\n?")


def cache_folder() -> Path:
    """Return the folder of this program in the user's cache; it need not exist.

    Raises:
        DetectorError: the user has no home and names no cache.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    if Path(named).is_absolute():  # the XDG specification ignores others
        return Path(named) / "edge-fer"
    try:
        return Path.home() / ".cache" / "edge-fer"
    except RuntimeError:
        raise DetectorError("there is no home folder for a cache: name one in XDG_CACHE_HOME") from None


def find_installed() -> tuple[Path, str] | None:
    """Return the installed YuNet file and the SHA-256 that it has to have; None when none was installed.

    Raises:
        DetectorError: the file is gone, or the record of what is installed is damaged.
    """
    try:
        record = cache_folder() / _RECORD
        text = record.read_text(encoding="ascii")
    except (DetectorError, OSError):  # no home, nothing installed, or a service that may not look there
        return None
    except ValueError:
        text = ""
    line = _RECORD_LINE.fullmatch(text)
    if line is None or line[2] != file_name(line[1]):
        raise DetectorError(
            f"{record} is damaged: run `{INSTALL_COMMAND}` again, or choose --detector cascade"
        )
    path = record.with_name(line[2])
    if not path.is_file():
        raise DetectorError(f"{path} is gone: run `{INSTALL_COMMAND}` again, or choose --detector cascade")
    return path, line[1]


def file_name(sha256: str) -> str:
    """Return what the file with this SHA-256 is called."""
    return f"yunet-{sha256[:16]}.onnx"


def record_installed(sha256: str) -> None:
    """Make the file with this SHA-256, which is in the cache, the one that `find_installed` finds.

    Raises:
        InputError: the cache cannot be written to.
    """
    write_text(cache_folder() / _RECORD, f"{sha256}  {file_name(sha256)}\n")
