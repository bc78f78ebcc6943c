"""Faces per second of training steps, every choice of precision and compilation in turns within one run.

    python -m tests.benchmarks.training --network grefel-lite [--batch 128] [--steps 4] [--rounds 5]
        [--device auto|cpu|cuda] [--compile] [--peak-tflops 989]

A step is the trainer's own: crops in memory, augmentation, forward, backward, optimiser. `--peak-tflops` is
the chip's peak in bf16, for the share of it that the network's multiply-adds reach (three times those of a
forward pass, two operations each).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from edge_fer.parity.environment import environment
from training.data.faces import FaceTensors
from training.devices import build_fabric, choose_device
from training.loop import Trainer
from training.models import DEFAULTS, build
from training.options import NetworkOptions, OptimiserOptions, Recipe
from training.run import RunFolder


def multiply_adds(name: str) -> float:
    """Return the multiply-adds of one face through the network, counted by torch."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network = build(name).eval()
        faces = torch.zeros(1, 3, network.spec.input_size, network.spec.input_size)
    with FlopCounterMode(display=False) as counter:
        network.forward_features(faces)  # the head is next to nothing
    return counter.get_total_flops() / 2


def build_trainer(name: str, batch: int, kind: tuple[str, bool], device: str, folder: Path) -> Trainer:
    """Return a trainer over faces of noise, without the warm-up, whose loss is not that of most epochs."""
    precision, compiled = kind
    size, classes = DEFAULTS[name].input_size, 8
    generator = torch.Generator().manual_seed(0)
    faces = FaceTensors(
        torch.randint(0, 256, (4 * batch, size, size, 3), dtype=torch.uint8, generator=generator),
        torch.arange(4 * batch) % classes,
        None,
    )
    recipe = Recipe(
        name="speed",
        network=NetworkOptions(model=name),
        optimiser=OptimiserOptions(epochs=1000, batch_size=batch, precision=precision, compile=compiled),
    )
    recipe = replace(recipe, method=replace(recipe.method, warmup_epochs=0))  # type: ignore[type-var]
    fabric = build_fabric(device, precision)
    trainer = Trainer(recipe, faces, faces, RunFolder(folder), fabric)
    trainer.model.train()
    return trainer


def seconds(trainer: Trainer, batch: int, steps: int) -> float:
    """Return how long so many steps take."""
    if trainer.fabric.device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    for number in range(steps):
        trainer.train_step(torch.arange(batch) + batch * (number % 4), number)
    if trainer.fabric.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--network", default="grefel-lite")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--peak-tflops", type=float)
    asked = parser.parse_args()
    device = choose_device(asked.device)
    kinds = [(precision, False) for precision in ("32-true", "bf16-mixed")]
    kinds += [(precision, True) for precision, _ in kinds] if asked.compile else []
    with tempfile.TemporaryDirectory() as folder:
        trainers = {
            kind: build_trainer(asked.network, asked.batch, kind, device, Path(folder) / str(number))
            for number, kind in enumerate(kinds)
        }
        taken: dict[tuple[str, bool], list[float]] = {kind: [] for kind in kinds}
        for number in range(asked.rounds + 1):
            for kind, trainer in trainers.items():
                spent = seconds(trainer, asked.batch, asked.steps)
                if number:  # the first round warms up, and compiles
                    taken[kind].append(spent)
    chip = f", {torch.cuda.get_device_name()}" if device == "cuda" else ""
    machine = f"{environment()['cpu']}{chip}, {torch.get_num_threads()} threads"
    print(f"{asked.network}, batch {asked.batch}, {machine}, torch {torch.__version__}")
    print("\n| precision | compiled | faces/s (median, least to most) | over fp32 eager | share of peak |")
    print("|---|---|---|---|---|")
    first = statistics.median(taken[kinds[0]])
    work = 6 * multiply_adds(asked.network)
    for kind, values in taken.items():
        rates = sorted(asked.batch * asked.steps / value for value in values)
        median = statistics.median(rates)
        share = f"{work * median / (asked.peak_tflops * 1e12):.3f}" if asked.peak_tflops else ""
        ratio = first / statistics.median(values)
        print(
            f"| {kind[0]} | {'yes' if kind[1] else 'no'} | {median:.0f} ({rates[0]:.0f} to "
            f"{rates[-1]:.0f}) | {ratio:.2f}x | {share} |"
        )


if __name__ == "__main__":
    main()
