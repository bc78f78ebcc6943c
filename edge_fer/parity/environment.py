"""Where a report was made: system, CPU class and features, threads, versions; nothing that names a host."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edge_fer.engines.base import Engine

# The features that decide which kernels an engine takes, as /proc/cpuinfo writes them, best first.
X86_CLASSES = (
    ("amx_int8", "amx"),
    ("avx512_vnni", "avx512-vnni"),
    ("avx_vnni", "avx-vnni"),
    ("avx512bw", "avx512"),
    ("avx2", "avx2"),
    ("sse4_1", "sse4.1"),
)
ARM_CLASSES = (("i8mm", "i8mm"), ("asimddp", "dotprod"))
FEATURES = re.compile(
    r"amx_.*|avx.*|fma|f16c|ssse3|sse4_[12]|asimd.*|neon|fphp|i8mm|bf16|sv(e|ei8mm|e2)|sme2?"
)
MODEL_KEYS = ("model name", "Model", "Hardware", "CPU part")
CPUINFO = Path("/proc/cpuinfo")
EMULATED = "EDGE_FER_EMULATED"
"""Environment variable that whoever emulates a processor sets, to such as `qemu-user 10.0, cortex-a72`, since
a program cannot tell for certain. Every report has it, so that none passes for one from a board."""
UNKNOWN = " unknown"
"""What ends the class of a processor that the system tells nothing of: two such may be anything."""


def environment(engine: Engine | None = None) -> dict[str, object]:
    """Describe this machine and, when one is given, the engine, as plain JSON values."""
    import edge_fer

    model, features = parse_cpuinfo(_cpuinfo())
    machine = platform.machine()
    described = {} if engine is None else dict(engine.describe())
    return {
        "system": platform.system(),
        "machine": machine,
        "cpu": model or platform.processor() or None,
        "cpu_class": cpu_class(machine, features),
        "features": sorted(filter(FEATURES.fullmatch, features)),
        "emulated": os.environ.get(EMULATED) or None,
        "cores": os.cpu_count(),
        "threads": described.get("threads"),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "edge_fer": edge_fer.__version__,
        },
        "engine": described or None,
    }


def parse_cpuinfo(text: str) -> tuple[str | None, frozenset[str]]:
    """Read the CPU's model and all its feature flags from the text of /proc/cpuinfo, x86 or ARM."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    model = next((fields[key] for key in MODEL_KEYS if fields.get(key)), None)
    return model, frozenset((fields.get("flags") or fields.get("Features") or "").split())


def cpu_class(machine: str, features: frozenset[str]) -> str:
    """Name the class of CPUs that run the same kernels, such as `x86-64 avx512-vnni` or `aarch64 no-dotprod`.

    Args:
        machine: as `platform.machine` names it.
        features: all flags of the CPU; empty when the system does not tell, which the class then says.
    """
    name = {"amd64": "x86-64", "x86_64": "x86-64", "arm64": "aarch64"}.get(machine.lower(), machine.lower())
    if not features:
        return name + UNKNOWN
    classes = {"x86-64": X86_CLASSES, "aarch64": ARM_CLASSES}.get(name, ())
    best = next((label for flag, label in classes if flag in features), None)
    fallback = {"x86-64": "x86-64 baseline", "aarch64": "aarch64 no-dotprod"}.get(name, name)
    return f"{name} {best}" if best else fallback


def _cpuinfo() -> str:
    try:
        return CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # not Linux: the class says that the features are unknown
