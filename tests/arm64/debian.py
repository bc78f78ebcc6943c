"""Packages of any suite and architecture of Debian into a folder: no root, nothing installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

MIRROR = "EDGE_FER_DEBIAN_MIRROR"
"""Environment variable that names a mirror of Debian; without it, the machine's own configuration does."""

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
DEBOOTSTRAP = Path("usr/sbin/debootstrap")


class Unavailable(Exception):
    """A package cannot be had on this machine; the text says why in one line."""


class Debian:
    """A private apt: sources, lists and archives of its own, and nothing installed."""

    def __init__(self, folder: Path, suite: str, architecture: str | None = None) -> None:
        """Find a mirror that has the suite and read its lists.

        Args:
            folder: for everything; made here.
            suite: code name of the release.
            architecture: None for the machine's.

        Raises:
            Unavailable: there is no apt, no key of Debian's, or no mirror with this suite.
        """
        self.folder = folder
        for name in ("lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        places = {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::status": folder / "status",
            "Dir::State::lists": folder / "lists",
            "Dir::Cache": folder / "cache",
            "Debug::NoLocking": "1",
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "",
        }
        if architecture is not None:
            places |= {"APT::Architecture": architecture, "APT::Architectures": architecture}
        self._options = [option for key, value in places.items() for option in ("-o", f"{key}={value}")]
        if not KEYRING.is_file():
            raise Unavailable("the keys of Debian's archive are not on this machine (debian-archive-keyring)")
        self._use_mirror(suite)

    def download(self, package: str) -> Path:
        """Fetch one package and return its archive."""
        self._apt("download", package)
        return next(self.folder.glob("*.deb"))

    def download_with_dependencies(self, *packages: str) -> list[Path]:
        """Fetch packages and all that they need, as on a system that has nothing; return the archives."""
        self._apt("install", "-y", "--no-install-recommends", "--download-only", *packages)
        return sorted((self.folder / "cache/archives").glob("*.deb"))

    def remove(self) -> None:
        """Delete lists and archives."""
        shutil.rmtree(self.folder)

    def _use_mirror(self, suite: str) -> None:
        faults = []
        for mirror in dict.fromkeys(mirrors(self.folder)):
            source = f"deb [signed-by={KEYRING}] {mirror} {suite} main\n"
            (self.folder / "sources.list").write_text(source)
            try:
                return self._apt("update", "--error-on=any")
            except Unavailable as error:
                faults.append(str(error))
        raise Unavailable(faults[-1] if faults else f"no mirror of Debian is known: set {MIRROR}")

    def _apt(self, *arguments: str) -> None:
        run("apt-get", "-q", *self._options, *arguments, cwd=self.folder)


def mirrors(folder: Path) -> Iterator[str]:
    """Yield the addresses to try: the one that the user names, else debootstrap's own and apt's.

    apt's may be a dated archive or another distribution's, so debootstrap's comes first.
    """
    named = os.environ.get(MIRROR)
    if named:
        yield named
        return
    script = Path("/") / DEBOOTSTRAP
    if not script.is_file():
        try:
            run("apt-get", "-q", "download", "debootstrap", cwd=folder)
            [archive] = folder.glob("debootstrap_*.deb")
            run("dpkg-deb", "-x", archive.name, "debootstrap", cwd=folder)
            archive.unlink()
            script = folder / "debootstrap" / DEBOOTSTRAP
        except Unavailable:
            pass  # a machine whose lists were never read: apt's own sources are left
    if script.is_file():
        yield from re.findall(r'^DEF_MIRROR="([^"]+)"', script.read_text(), re.MULTILINE)
    yield from run("apt-get", "indextargets", "--format", "$(REPO_URI)").split()


def run(*command: object, cwd: Path | None = None) -> str:
    """Run a program and return its output.

    Raises:
        Unavailable: it is not here or fails; with its last error.
    """
    try:
        done = subprocess.run(
            [str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise Unavailable(f"{command[0]} does not start: {error.strerror}") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
        errors = [line for line in said if line.startswith(("E: ", "ERROR: "))]  # apt's and pip's
        raise Unavailable(
            f"{Path(str(command[0])).name} ended with {done.returncode}: {(errors or said)[-1]}"
        )
    return done.stdout
