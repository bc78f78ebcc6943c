"""With which code and on which machine a run was made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import torch
from lightning.fabric import Fabric

from edge_fer.parity.environment import environment

ROOT = Path(__file__).resolve().parents[1]


def describe_environment(fabric: Fabric) -> dict[str, object]:
    """Return versions, the commit of the checkout, processor or GPU, threads and processes."""
    device, machine = fabric.device, environment()
    return {
        **{name: machine[name] for name in ("versions", "system", "cpu", "cpu_class", "cores")},
        "commit": commit(ROOT),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "processes": fabric.world_size,
        "precision": str(fabric._precision.precision),
    }


def commit(root: Path) -> str | None:
    """Return the commit at `root`, with "+changes" where tracked files differ; None without git."""
    try:
        head = git(root, "rev-parse", "HEAD")
        return f"{head}+changes" if git(root, "status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.CalledProcessError):
        return None


def git(root: Path, *arguments: str) -> str:
    """Return what git prints."""
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
