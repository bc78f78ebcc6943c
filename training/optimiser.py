"""Optimisers, learning rates, and sharpness-aware minimisation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from training.options import OptimiserOptions, Rates


def build_optimiser(
    network: Sequence[nn.Parameter], head: Sequence[nn.Parameter], options: OptimiserOptions
) -> torch.optim.Optimizer:
    """Return the recipe's optimiser: vectors and scalars are never decayed, the head may have its own rate.

    Args:
        network: what is trained at `learning_rate`.
        head: what is trained at the head's rate: the head's parameters and the method's.
    """
    groups: list[dict[str, Any]] = []
    for part, parameters in (("network", network), ("head", head)):
        for decay, chosen in (
            (options.weight_decay, [p for p in parameters if p.ndim > 1]),
            (0.0, [p for p in parameters if p.ndim <= 1]),
        ):
            if chosen:
                groups.append({"params": chosen, "weight_decay": decay, "part": part})
    rate = options.learning_rate
    if options.kind == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=options.momentum)
    return (torch.optim.Adam if options.kind == "adam" else torch.optim.AdamW)(groups, lr=rate)


def set_rates(optimiser: torch.optim.Optimizer, options: OptimiserOptions, step: int, steps: int) -> float:
    """Give every group its rate of one step; return the network's."""
    network = learning_rate(options, step, steps)
    for group in optimiser.param_groups:
        group["lr"] = network if group["part"] == "network" else head_rate(options, step, steps)
    return network


def learning_rate(options: OptimiserOptions, step: int, steps: int) -> float:
    """Return the rate of one of `steps` steps.

    one-cycle: linear warm-up over the first share of the steps, then cosine to zero. exponential: times
    `gamma` after every epoch. steps: the rate of the last entry of `rates` whose epoch has begun.
    """
    epoch = step * options.epochs // steps
    if options.schedule == "exponential":
        return options.learning_rate * options.gamma**epoch
    if options.schedule == "steps":
        return stepped(options.rates, epoch)
    warmup = max(1, round(options.warmup * steps))
    if step < warmup:
        return options.learning_rate * (step + 1) / warmup
    return options.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def head_rate(options: OptimiserOptions, step: int, steps: int) -> float:
    """Return the rate of the head and of the method's own parameters."""
    if options.head_rates:
        return stepped(options.head_rates, step * options.epochs // steps)
    return options.head_rate * learning_rate(options, step, steps)


def stepped(rates: Rates, epoch: int) -> float:
    """Return the rate of the last (epoch, rate) that is not later than `epoch`."""
    return [rate for first, rate in rates if first <= epoch][-1]


@contextmanager
def at_sharpest(parameters: Sequence[nn.Parameter], radius: float) -> Iterator[None]:
    """Move the parameters to where the loss rises fastest within `radius`, and back at the end.

    w + rho g / ||g|| with the gradients that are there, which are then forgotten; those taken inside are what
    the optimiser steps with (SAM, Foret et al., ICLR 2021, not adaptive).
    """
    moved = [p for p in parameters if p.grad is not None]
    norm = torch.stack([p.grad.norm() for p in moved if p.grad is not None]).norm()
    before = [p.detach().clone() for p in moved]
    with torch.no_grad():
        for parameter in moved:
            assert parameter.grad is not None
            parameter.add_(parameter.grad, alpha=radius / (float(norm) + 1e-12))
            parameter.grad = None
    yield
    with torch.no_grad():
        for parameter, value in zip(moved, before, strict=True):
            parameter.copy_(value)


@contextmanager
def kept_statistics(module: nn.Module) -> Iterator[None]:
    """Let BatchNorms normalise by the batch without moving their running statistics."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    yield
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
