"""Checkpoints: float weights as safetensors with the network's spec in the header. No pickle anywhere."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from edge_fer.errors import CheckpointError
from edge_fer.preprocess import CropSpec
from training.models.network import ExpressionNetwork, NetworkSpec, build_from_spec

FORMAT = "edge-fer-checkpoint-1"
# One key: safetensors writes several in random order, and equal checkpoints would have different hashes.
HEADER = "edge-fer"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A network in eval mode with how its faces are cropped, where it came from and the file's SHA-256."""

    network: ExpressionNetwork
    crop: CropSpec
    info: Mapping[str, object]
    sha256: str


def save_checkpoint(
    path: Path, network: ExpressionNetwork, crop: CropSpec, info: Mapping[str, object]
) -> None:
    """Write weights, spec, crop protocol and `info` (recipe, figures) to one file, atomically."""
    header = {"format": FORMAT, "network": network.spec.to_json(), "crop": crop.to_json(), "info": info}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    replace_file(path, save(tensors, metadata={HEADER: json.dumps(header, sort_keys=True)}))


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` under a temporary name beside `path`, flush it to the disk, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> Checkpoint:
    """Rebuild the network a checkpoint holds.

    Raises:
        CheckpointError: missing, damaged, foreign, or its tensors do not fit the network it names.
    """
    tensors, metadata = read_safetensors(path)
    try:
        header = json.loads(metadata.get(HEADER, "{}"))
    except ValueError as error:
        raise CheckpointError(f"{path}: the header is not JSON: {error}") from error
    found = header.get("format") if isinstance(header, dict) else None
    if found != FORMAT:
        raise CheckpointError(
            f"{path}: expected a checkpoint of format {FORMAT}, got {found!r}; "
            "give a file written by `python cli.py train`"
        )
    try:
        network = build_from_spec(NetworkSpec.from_json(header["network"]))
        crop = CropSpec.from_json(header["crop"])
        info = header["info"]
        if not isinstance(info, dict):
            raise ValueError(f"expected an object as info, got {type(info).__name__}")
    except (KeyError, ValueError, TypeError, RuntimeError) as error:  # torch refuses a size with RuntimeError
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: the header does not describe a network: {reason}") from error
    fill(network, tensors, path)
    return Checkpoint(network.eval(), crop, info, hashlib.sha256(path.read_bytes()).hexdigest())


def read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors and the header of a safetensors file.

    Raises:
        CheckpointError: missing or not safetensors.
    """
    if path.is_dir():
        raise CheckpointError(
            f"{path}: expected a checkpoint, got a folder; name a file in it, such as best.safetensors"
        )
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint") from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: expected a safetensors file, could not read it: {error}") from error


def fill(network: ExpressionNetwork, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Copy `tensors` into the network after checking every name and shape."""
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    got = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wrong = sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name))
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"{path}: {len(wrong)} tensors do not fit {network.spec.model}, first {name}: "
            f"expected {expected.get(name, 'none')}, got {got.get(name, 'none')}; "
            "is this another network's checkpoint?"
        )
    network.load_state_dict(tensors)
