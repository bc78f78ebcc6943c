"""The emulated processors: what each is, how its interpreter is started, and what a set-up folder holds.

Knows nothing of how the folder is filled (`setup`).
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

FOLDER = "EDGE_FER_EMULATION"
"""Environment variable that names the folder made by `python -m tests.arm64.setup FOLDER`."""

EMULATED = "EDGE_FER_EMULATED"
"""What the interpreters set, for `edge_fer.parity.environment`: every report says that it was emulated."""

READY = "ready"
"""File that a set-up folder has when everything is in it."""

LIMIT_S = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """One emulated processor.

    Attributes:
        name: as the tests and `certify` call it.
        qemu: the emulator's program, inside the folder.
        model: as its option -cpu names it.
        root: folder that stands for the guest's file system, where it has the file; else it is the host's.
        python: the script that starts the interpreter. `sys.executable` is this script, so what the guest
            starts is emulated, too; it stands where the interpreter finds its library from.
        cpu_class: as `edge_fer.parity.environment` has to name it.
    """

    name: str
    qemu: str
    model: str
    root: str
    python: str
    cpu_class: str


CPUS = (
    Cpu(  # Raspberry Pi 4
        name="cortex-a72",
        qemu="qemu/qemu-aarch64",
        model="cortex-a72",
        root="arm64",
        python="arm64/usr/bin/cortex-a72",
        cpu_class="aarch64 no-dotprod",
    ),
    Cpu(  # Raspberry Pi 5
        name="cortex-a76",
        qemu="qemu/qemu-aarch64",
        model="cortex-a76",
        root="arm64",
        python="arm64/usr/bin/cortex-a76",
        cpu_class="aarch64 dotprod",
    ),
    Cpu(  # AVX2 without VNNI; the emulator has no transactions
        name="haswell",
        qemu="qemu/qemu-x86_64",
        model="Haswell,-hle,-rtm",
        root="x86-64",
        python="x86-64/bin/haswell",
        cpu_class="x86-64 avx2",
    ),
)


def missing(folder: Path | None) -> str | None:
    """Return in one line why nothing can be emulated; None when it can."""
    if folder is None:
        return f"{FOLDER} names no folder: python -m tests.arm64.setup FOLDER makes one"
    if not (folder / READY).is_file():
        return f"{folder} is not complete: python -m tests.arm64.setup {folder}"
    return None


def named_folder() -> Path | None:
    """Return the folder that the environment names."""
    name = os.environ.get(FOLDER)
    return Path(name).resolve() if name else None


def run(
    folder: Path, cpu: Cpu, *arguments: object, cwd: Path, limit_s: float = LIMIT_S
) -> subprocess.CompletedProcess[str]:
    """Run Python on an emulated processor, killed for good when it takes too long: guests ignore signals.

    Args:
        folder: that `setup` filled.
        cpu: one of `CPUS`.
        arguments: of the interpreter.
        cwd: where it runs; not a checkout, whose `edge_fer` it would import.
        limit_s: seconds until it is killed (exit code 137 or -9).
    """
    command = ["timeout", "-s", "KILL", str(limit_s), str(folder / cpu.python), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
