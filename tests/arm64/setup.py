"""Fills a folder with what emulation needs: qemu, an aarch64 Python, the engines' aarch64 wheels, our wheel.

    python -m tests.arm64.setup FOLDER [--wheel WHEEL]

Needs no root. What is there already is kept. Exit code 3, and one line: a package cannot be had here.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.arm64.debian import Debian, Unavailable, run
from tests.arm64.emulation import CPUS, EMULATED, READY, Cpu

ROOT = Path(__file__).resolve().parents[2]
UNAVAILABLE = 3

# What the guest's Python 3.11, which is that of Debian 12, and the libraries of the engines load.
SYSTEM_SUITE, SYSTEM = "bookworm", ("python3.11-minimal", "libpython3.11-stdlib", "libstdc++6", "libgomp1")
# The 7.2 of Debian 12 crashes on `import onnxruntime`.
QEMU_SUITE, QEMU = "trixie", "qemu-user"
# What the wheel depends on, the other engines, and what its tests are run with.
PACKAGES = (
    "ai-edge-litert",
    "numpy",
    "onnxruntime",
    "opencv-python-headless",
    "openvino",
    "pillow",
    "pytest",
    "rich",
    "typer",
)
# Of Debian 12's glibc 2.36 and older, newest last.
PLATFORMS = ("2014", "_2_17", "_2_24", "_2_26", "_2_27", "_2_28", "_2_31", "_2_34", "_2_35")
# qemu-x86_64 passes the host's file on, which would name the host's features.
CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Haswell
flags\t\t: fpu sse sse2 ssse3 fma sse4_1 sse4_2 movbe popcnt avx f16c avx2 bmi1 bmi2
"""


def part(folder: Path, name: str, key: str, fill: Callable[[Path], None]) -> None:
    """Make one folder with `fill`, or keep it when it was filled before for the same key.

    Args:
        folder: that holds all parts.
        name: of this one.
        key: everything that decides what is in it.
        fill: given an empty folder, which gets the name when it is complete.
    """
    place = folder / name
    stamp = place / ".key"
    digest = hashlib.sha256(key.encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        print(f"{name}: kept")
        return
    started = time.monotonic()
    shutil.rmtree(place, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}-") as temporary:
        filled = Path(temporary) / name
        filled.mkdir()
        fill(filled)
        (filled / ".key").write_text(digest)
        filled.rename(place)
    print(f"{name}: {time.monotonic() - started:.0f} s")


def fill_qemu(place: Path) -> None:
    debian = Debian(place / "apt", QEMU_SUITE)
    archive = debian.download(QEMU)
    run("dpkg-deb", "-x", archive, place / "files")
    for name in sorted({Path(cpu.qemu).name for cpu in CPUS}):
        (place / "files/usr/bin" / name).rename(place / name)
        run(place / name, "--version")
    shutil.rmtree(place / "files")
    debian.remove()


def fill_system(place: Path) -> None:
    debian = Debian(place / "apt", SYSTEM_SUITE, "arm64")
    for archive in debian.download_with_dependencies(*SYSTEM):
        run("dpkg-deb", "-x", archive, place)
    debian.remove()


def fill_site(place: Path) -> None:
    tags = [f"manylinux{version}_aarch64" for version in PLATFORMS] + ["linux_aarch64"]
    platforms = [option for tag in tags for option in ("--platform", tag)]
    only = ["--only-binary=:all:", "--implementation", "cp", "--python-version", "3.11", "--no-compile"]
    constraints = ["-c", ROOT / "constraints.txt"]
    pip(place, *only, *platforms, *constraints, *PACKAGES)


def pip(place: Path, *arguments: object) -> None:
    """Install into a folder, with the registry that pip is configured for."""
    run(sys.executable, "-m", "pip", "install", "-q", "--target", place, *arguments)


def build_wheel(place: Path) -> Path:
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", place, ROOT)
    return next(place.glob("*.whl"))


def write_script(folder: Path, cpu: Cpu, version: str) -> None:
    """Write the script that starts the interpreter of one processor."""
    native = folder / "x86-64" / "python"
    emulated = {
        EMULATED: f"{version}, {cpu.name}",
        "PYTHONPATH": f"{folder / 'wheel'}:{folder / 'site'}",
        "PYTHONNOUSERSITE": "1",
    }
    interpreter = folder / cpu.root / "usr/bin/python3.11"
    if cpu.root == "x86-64":
        emulated["PYTHONPATH"] = f"{folder / 'wheel'}:{sysconfig.get_path('platlib')}"
        interpreter = native
    told = " ".join(f"{name}={shlex.quote(value)}" for name, value in emulated.items())
    command = [str(folder / cpu.qemu), "-0", '"$0"', "-cpu", cpu.model, "-L", str(folder / cpu.root)]
    quoted = " ".join(word if word == '"$0"' else shlex.quote(word) for word in [*command, str(interpreter)])
    script = folder / cpu.python
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(f'#!/bin/sh\n{told} exec {quoted} "$@"\n')
    script.chmod(0o755)


def fill_x86(place: Path) -> None:
    """Make a virtual environment of this machine's interpreter, and the processor that it is to see."""
    base = Path(sys.executable).resolve()
    (place / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    (place / "python").symlink_to(base)
    (place / "bin").mkdir()
    (place / "proc").mkdir()
    (place / "proc/cpuinfo").write_text(CPUINFO)


def contents(folder: Path, wheel: Path) -> Mapping[str, tuple[str, Callable[[Path], None]]]:
    """Return what each part of the folder depends on, and what fills it."""
    graph = hashlib.sha256(wheel.read_bytes()).hexdigest()
    versions = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return {
        "qemu": (f"{QEMU_SUITE} {QEMU}", fill_qemu),
        "arm64": (f"{SYSTEM_SUITE} {SYSTEM}", fill_system),
        "site": (f"{PACKAGES} {versions}", fill_site),
        "wheel": (graph, lambda place: pip(place, "--no-deps", wheel)),
        "x86-64": (f"{sys.executable} {CPUINFO}", fill_x86),
    }


def set_up(folder: Path, wheel: Path | None) -> None:
    """Fill the folder.

    Args:
        folder: outside of the checkout; what it holds already is kept.
        wheel: of edge_fer; None to build it.

    Raises:
        Unavailable: something cannot be had here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / READY).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor() as pool:
        built = wheel or build_wheel(Path(temporary))
        parts = contents(folder, built).items()
        running = [pool.submit(part, folder, name, key, fill) for name, (key, fill) in parts]
        for done in running:
            done.result()
    version = run(folder / CPUS[0].qemu, "--version").split("(")[0].replace("version ", "").strip()
    for cpu in CPUS:
        write_script(folder, cpu, version.replace("qemu-aarch64", "qemu-user"))
        print(f"{cpu.name}: {run(folder / cpu.python, '-VV').strip()}")
    (folder / READY).touch()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--wheel", type=Path, help="of edge_fer; without it, it is built from the checkout")
    given = parser.parse_args(arguments)
    folder = given.folder.resolve()
    if folder == ROOT or ROOT in folder.parents:
        parser.error(f"expected a folder outside of the checkout, got {folder}")
    try:
        set_up(folder, None if given.wheel is None else given.wheel.resolve())
    except Unavailable as error:
        print(f"nothing can be emulated here: {error}", file=sys.stderr)
        return UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
