"""Calibrates a checkpoint that was kept without a temperature, or with one of other faces.

    python -m training.temperature CHECKPOINT --data ferplus:D:valid --output NEW.safetensors

The weights stay as they are; the temperature that minimises the NLL of the labelled faces of DATA is written
into the head (`NetworkSpec.temperature`). A run does the same by itself for what it keeps.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

from edge_fer.cli_errors import guarded, notice
from edge_fer.errors import InputError
from training.data.faces import FaceTensors, LoadOptions, load_faces
from training.evaluation import Evaluation, evaluate
from training.models import calibrated
from training.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


def calibrate(checkpoint: Checkpoint, faces: FaceTensors, path: Path) -> tuple[float, Evaluation]:
    """Write the checkpoint with the temperature of these faces; return it and the figures it then has."""
    plain = calibrated(checkpoint.network, 1.0)
    temperature = evaluate(plain, faces, torch.device("cpu")).temperature
    network = calibrated(plain, temperature)
    figures = evaluate(network, faces, torch.device("cpu"))
    info = {**checkpoint.info, "validation": asdict(figures), "calibrated_from": checkpoint.sha256}
    save_checkpoint(path, network, checkpoint.crop, info)
    return temperature, figures


@guarded
def main(
    checkpoint: Annotated[Path, typer.Argument(readable=False, help="The checkpoint, which stays as it is.")],
    data: Annotated[str, typer.Option(help="Labelled faces that the weights were not trained on.")],
    output: Annotated[Path, typer.Option(readable=False, help="The checkpoint to write.")],
) -> None:
    """Write a checkpoint again with the temperature that calibrates it; prints the path."""
    if os.path.lexists(output):
        raise InputError(f"--output {output}: expected a name that is not taken yet; name another")
    old = load_checkpoint(checkpoint)
    faces = load_faces(data, old.crop, old.network.spec.labels, LoadOptions(report=notice))
    temperature, figures = calibrate(old, faces, output)
    notice(
        f"temperature {temperature:.4f}: ECE {figures.ece:.4f}, NLL {figures.nll:.4f}, "
        f"accuracy {figures.accuracy:.4f}, mean recall {figures.mean_recall:.4f}"
    )
    typer.echo(output)


if __name__ == "__main__":
    typer.run(main)
