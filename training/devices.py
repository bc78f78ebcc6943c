"""On what a run computes: one CPU, one GPU, or one process for each of many, as torchrun starts them."""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy

from edge_fer.errors import TrainingError


def choose_device(device: str) -> str:
    """Return cpu or cuda.

    Raises:
        TrainingError: an unknown device, or cuda where there is none.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise TrainingError(f"expected --device auto, cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device cuda: this machine has no CUDA device torch can use; use --device cpu")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def build_fabric(device: str, precision: str) -> Fabric:
    """Return the launched fabric of this process; under torchrun, one of WORLD_SIZE.

    Raises:
        TrainingError: more processes on this machine than it has GPUs.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device == "cuda" and here > torch.cuda.device_count():
        raise TrainingError(
            f"expected at most one process for each of {torch.cuda.device_count()} GPUs, got {here}; "
            f"start torchrun with --nproc-per-node {torch.cuda.device_count()}"
        )
    strategy: Any = "auto"
    if world > 1:
        # Methods leave parameters out of some steps (a warm-up, a branch without faces).
        strategy = DDPStrategy(
            find_unused_parameters=True, process_group_backend="nccl" if device == "cuda" else "gloo"
        )
    fabric = Fabric(
        accelerator=device,
        devices=here,
        num_nodes=max(1, world // here),
        strategy=strategy,
        precision=precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def ran_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether torch had too little memory: on a CPU that is an error like any other."""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def refuse_compilation(error: RuntimeError) -> None:
    """Turn what torch.compile raises, for want of a C++ compiler say, into one line; leave any other error.

    Raises:
        TrainingError: the error is torch.compile's.
    """
    from torch._dynamo.exc import TorchDynamoException  # takes a second to import; compiling has done so

    if isinstance(error, TorchDynamoException):
        reason = str(error).strip().splitlines()[0]
        raise TrainingError(
            f"torch.compile: {reason}; install what is missing (on a CPU a C++ compiler; CXX may name it), "
            "or set optimiser.compile = false and train into another --output"
        ) from error
