"""Puts YuNet into the user's cache, after a check of what it is.

The record is written last, so that a broken installation leaves the one before it in force.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from edge_fer.detectors.cache import cache_folder, file_name, record_installed
from edge_fer.detectors.download import Download, Show, fetch, shown
from edge_fer.detectors.yunet import MAX_BYTES, check_model, read_model
from edge_fer.errors import DetectorError, UsageError
from edge_fer.output import temporary_name

# The file of OpenCV's model zoo in its present home (https://github.com/opencv/opencv_zoo is archived), bound
# to one commit; the hash is that of the zoo's own git-lfs pointer.
YUNET_URL = (
    "https://huggingface.co/opencv/face_detection_yunet/resolve/"
    "3cc26e7f1014a5ee5d74a42acee58bafc9d0a310/face_detection_yunet_2023mar.onnx"
)
YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"


def install(source: str | None = None, sha256: str | None = None, show: Show | None = None) -> Path:
    """Put a YuNet file into the user's cache, where `load_detector` finds it.

    Args:
        source: its http or https address, or the path of a file; None: OpenCV's release.
        sha256: what it has to be, in hexadecimal digits; None: what OpenCV's release is.
        show: called with the bytes that are there and those expected (None: not known).

    Returns:
        The installed file.

    Raises:
        UsageError: that is no address, or no SHA-256.
        DetectorError: it cannot be had, is something else, or the cache cannot be written to.
    """
    source, sha256 = source or YUNET_URL, (sha256 or YUNET_SHA256).lower()
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise UsageError(f"--sha256: expected 64 hexadecimal digits, got {sha256!r}")
    where = shown(source) if "://" in source else source
    folder = cache_folder()
    target = folder / file_name(sha256)
    partial = target.with_suffix(".part")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what it holds is run
        if "://" in source:
            model = _download(Download(url=source, limit=MAX_BYTES, show=show), partial, sha256)
        else:
            model = read_model(Path(source))
        if _hash(model) != sha256:
            raise DetectorError(
                f"{where}: expected SHA-256 {sha256}, got {_hash(model)}; nothing was installed: "
                "give --sha256 what this file has to be, or another --url"
            )
        check_model(model, where)
        _place(model, target)
        record_installed(sha256)
    except OSError as error:
        raise DetectorError(
            f"{error.filename or folder} cannot be written: {error.strerror}; "
            "free some space, or name another cache in XDG_CACHE_HOME"
        ) from None
    return target


def _download(download: Download, partial: Path, sha256: str) -> bytes:
    """Fetch a file, or the rest of it; all of it again when the beginning turns out to be another file's."""
    resumed = partial.is_file()
    if not (resumed and _hash(partial.read_bytes()) == sha256):
        fetch(download, partial)
    model = partial.read_bytes()
    if resumed and _hash(model) != sha256:
        partial.unlink()
        fetch(download, partial)
        model = partial.read_bytes()
    for leftover in (partial, partial.with_suffix(".version")):
        leftover.unlink(missing_ok=True)
    return model


def _place(model: bytes, target: Path) -> None:
    temporary = temporary_name(target)
    try:
        temporary.write_bytes(model)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
