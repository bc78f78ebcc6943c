"""A tiny network, tiny faces that it can tell apart, and a few steps of training as the loop takes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from training.methods.method import Batch, Method, Moment, Neighbours, Rule, TrainingSet
from training.models import ExpressionNetwork, build

CLASSES, SIZE, PER_CLASS = 3, 32, 12
STEPS = 30
NOW = Moment(epoch=0, epochs=1, step=0, steps=1)


def tiny_network(seed: int = 0, head: str = "linear") -> ExpressionNetwork:
    torch.manual_seed(seed)
    return build("grefel-lite-s", classes=CLASSES, input_size=SIZE, head=head)


def tiny_faces(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return faces of noise (M, 3, S, S), each class brighter than the one before, and their labels (M,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(CLASSES).repeat(PER_CLASS)
    faces = 0.4 * torch.rand(len(labels), 3, SIZE, SIZE, generator=generator)
    return faces + 0.25 * labels.reshape(-1, 1, 1, 1), labels


def training_set(labels: torch.Tensor) -> TrainingSet:
    return TrainingSet(labels=labels, classes=CLASSES)


def batch_of(faces: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor, neighbours: int = 0) -> Batch:
    """Return the batch of these rows; the K neighbours of a face are those that follow it in its class."""
    near = None
    if neighbours:
        following = CLASSES * torch.arange(1, neighbours + 1)
        near_rows = (rows[:, None] + following) % len(labels)
        near = Neighbours(
            faces=faces[near_rows],
            labels=labels[near_rows],
            rows=near_rows,
            similarity=torch.linspace(1.0, 0.3, neighbours).repeat(len(rows), 1),
        )
    targets = torch.nn.functional.one_hot(labels[rows], CLASSES).float()
    return Batch(faces=faces[rows], labels=labels[rows], targets=targets, rows=rows, neighbours=near)


def voted_batch(rows: torch.Tensor | None = None) -> Batch:
    """Return the batch of these rows, else of the first nine, with made-up votes as targets."""
    batch = batch_of(*tiny_faces(), torch.arange(9) if rows is None else rows)
    votes = torch.randn(len(batch.rows), CLASSES, generator=torch.Generator().manual_seed(3))
    return replace(batch, targets=votes.softmax(dim=-1))


def maps_of_passes(network: ExpressionNetwork) -> list[torch.Tensor]:
    """Return a list that gets the encoder's maps of every pass from now on, and they keep their gradient."""
    passes: list[torch.Tensor] = []

    def remember(module: object, given: object, maps: torch.Tensor) -> None:
        maps.retain_grad()
        passes.append(maps)

    network.encoder.last.register_forward_hook(remember)
    return passes


def train_tiny(method: Method, network: ExpressionNetwork, epoch: int = 0) -> dict[str, list[float]]:
    """Train 30 steps on the tiny faces; return every term's values, all of them finite."""
    faces, labels = tiny_faces()
    network.train()
    method.train()
    own = {id(p) for p in method.own_parameters()}
    parameters = [p for p in (*network.parameters(), *method.parameters()) if id(p) not in own]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3)
    history: dict[str, list[float]] = {}
    for step in range(STEPS):
        torch.manual_seed(step)
        batch = batch_of(faces, labels, torch.randperm(len(labels))[:12], method.neighbours)
        terms = method(network, batch, Moment(epoch=epoch, epochs=2, step=step, steps=STEPS))
        terms["total"].backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()
        method.after_step(network, batch)
        optimiser.zero_grad()
        for name, value in terms.items():
            history.setdefault(name, []).append(float(value.detach()))
    tensors = (*network.state_dict().values(), *method.state_dict().values())
    assert all(torch.isfinite(tensor).all() for tensor in tensors)
    assert all(torch.isfinite(torch.tensor(values)).all() for values in history.values())
    assert all(len(values) == STEPS for values in history.values())
    return history


def falls(values: list[float], factor: float = 0.7) -> bool:
    """Whether the last five values are on average below `factor` times the first five."""
    return sum(values[-5:]) < factor * sum(values[:5])


def refused(rules: Callable[[Any], tuple[Rule, ...]], options: Any, option: str, value: object) -> list[str]:
    """Return which options the rules refuse once one has this value; before, they refuse none."""
    assert all(good for *_, good in rules(options))
    return [name for name, _, _, good in rules(replace(options, **{option: value})) if not good]
