"""Reads the files of a bundle from a folder or from one zip, and never anything outside it.

Knows names, sizes, links and compression. Does not know what the files mean.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from edge_fer.errors import BundleError

MAX_BUNDLE_BYTES = 1 << 30
"""All members together; the largest network in fp32 takes about 180 MB."""

_MAX_ENTRIES = 256
_MAX_RATIO = 100  # weights do not shrink, JSON shrinks about 10 times
_FREE_RATIO_BYTES = 1 << 20  # small files may shrink as they like


class Archive(Protocol):
    """The files of one bundle."""

    def names(self) -> frozenset[str]:
        """Return the names of the files at the top of the bundle."""
        ...

    def read(self, name: str, limit: int) -> bytes:
        """Return a file's bytes.

        Raises:
            BundleError: the file is missing, unreadable, outside the bundle or longer than `limit` bytes.
        """
        ...


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open the folder or the zip at `path`.

    Raises:
        BundleError: there is nothing there, or something else.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BundleError(
            f"no bundle at {path} ({reason}): expected a folder NAME.fer or a zip of it"
        ) from error
    if stat.S_ISDIR(mode):
        yield _Folder(path)
        return
    if not stat.S_ISREG(mode):
        raise BundleError(f"{path} is not a bundle: expected a folder NAME.fer or a zip of it")
    try:
        with zipfile.ZipFile(path) as archive:
            yield _Zip(path, archive)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise BundleError(
            f"{path} is not a whole zip file ({error}): expected a folder NAME.fer or a zip of it"
        ) from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}") from error


class _Folder:
    """A bundle that is a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> frozenset[str]:
        try:
            return frozenset(entry.name for entry in self._root.iterdir())
        except OSError as error:
            raise BundleError(f"{self._root} cannot be read: {error.strerror}") from error

    def read(self, name: str, limit: int) -> bytes:
        file = self._root / name
        try:
            real = file.resolve(strict=True)
            if real.parent != self._root.resolve():
                raise BundleError(
                    f"{file} is a link that leaves the bundle, to {real}: put the file itself there"
                )
            if not real.is_file():
                raise BundleError(f"{file} is not a regular file")
            with real.open("rb") as stream:
                data = stream.read(limit + 1)
        except FileNotFoundError as error:
            raise BundleError(f"{self._root} has no file {name}: copy the whole bundle again") from error
        except RuntimeError as error:  # a loop of links, up to Python 3.12
            raise BundleError(f"{file} is a link to itself") from error
        except OSError as error:
            raise BundleError(f"{file} cannot be read: {error.strerror}") from error
        if len(data) > limit:
            raise BundleError(
                f"{file} is longer than the {limit} bytes expected: copy the whole bundle again"
            )
        return data


class _Zip:
    """A bundle that is one zip, with or without the folder NAME.fer/ inside."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path = path
        self._archive = archive
        entries = [entry for entry in archive.infolist() if not _is_clutter(entry)]
        self._check(entries)
        tops = [entry.filename.rpartition("/")[0] for entry in entries if _base(entry) == "bundle.json"]
        if len(tops) != 1 or "/" in tops[0]:
            raise BundleError(
                f"{path} is not a bundle: expected one bundle.json inside, at the top or in one folder"
            )
        prefix = tops[0] + "/" if tops[0] else ""
        self._entries = {
            entry.filename[len(prefix) :]: entry
            for entry in entries
            if entry.filename.startswith(prefix) and not entry.is_dir()
        }

    def _check(self, entries: list[zipfile.ZipInfo]) -> None:
        """Refuse the tricks a zip can play, before one byte of it is unpacked."""
        if len(entries) > _MAX_ENTRIES:
            raise BundleError(
                f"{self._path} holds {len(entries)} files, more than any bundle ({_MAX_ENTRIES})"
            )
        seen: set[str] = set()
        for entry in entries:
            name = entry.orig_filename
            parts = name.rstrip("/").split("/")
            if any(sign in name for sign in "\\:\0") or {"", ".", ".."} & set(parts):
                raise BundleError(
                    f"{self._path} holds the name {name!r}, which could leave the bundle: refused"
                )
            if name in seen:
                raise BundleError(f"{self._path} holds two files of the name {name!r}: zip the bundle again")
            seen.add(name)
            if entry.flag_bits & 1:
                raise BundleError(f"{self._path} is encrypted: zip the bundle again without a password")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise BundleError(
                    f"{self._path} uses an unusual compression: zip the bundle again with deflate"
                )
            unpacked = entry.file_size
            if unpacked > _FREE_RATIO_BYTES and unpacked > _MAX_RATIO * max(1, entry.compress_size):
                raise BundleError(
                    f"{self._path} is a zip bomb: {entry.compress_size} bytes unpack to {unpacked}"
                )
        total = sum(entry.file_size for entry in entries)
        if total > MAX_BUNDLE_BYTES:
            raise BundleError(
                f"{self._path} unpacks to {total} bytes, more than any bundle ({MAX_BUNDLE_BYTES})"
            )

    def names(self) -> frozenset[str]:
        return frozenset(self._entries)

    def read(self, name: str, limit: int) -> bytes:
        entry = self._entries.get(name)
        if entry is None:
            raise BundleError(f"{self._path} has no file {name}: copy the whole bundle again")
        if entry.file_size > limit:
            raise BundleError(
                f"{self._path}: {name} has {entry.file_size} bytes, expected at most {limit}: copy it again"
            )
        try:
            with self._archive.open(entry) as stream:
                return stream.read(limit + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
            raise BundleError(
                f"{self._path}: {name} cannot be unpacked ({error}): copy the zip again"
            ) from error


def _base(entry: zipfile.ZipInfo) -> str:
    return entry.filename.rpartition("/")[2]


def _is_clutter(entry: zipfile.ZipInfo) -> bool:
    # What the Finder adds to every zip it makes.
    return entry.filename.startswith("__MACOSX/")
