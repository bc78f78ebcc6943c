"""What DMUE's parts are in NumPy, float64, written from the formulas."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from tests.training.methods.tiny_training import CLASSES
from training.methods.dmue import Dmue


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def negative_log(z: np.ndarray, labels: list[int]) -> float:
    return float(np.mean([-math.log(softmax(row)[label]) for row, label in zip(z, labels, strict=True)]))


def row_normalised(f: np.ndarray) -> np.ndarray:
    gram = f @ f.T
    return gram / np.linalg.norm(gram, axis=1, keepdims=True)


def linear(x: np.ndarray, layer: nn.Module) -> np.ndarray:
    state = {name: t.detach().double().numpy() for name, t in layer.state_dict().items()}
    return x @ state["weight"].T + state.get("bias", 0.0)


def numpy_of(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def uncertainty_reference(method: Dmue, gap: np.ndarray, labels: list[int]) -> np.ndarray:
    """Return u from the target branch's pooled maps and the estimator's weights."""
    unit = gap / np.linalg.norm(gap, axis=1, keepdims=True)
    by_class = np.stack(
        [(unit @ unit.T)[:, [y == c for y in labels]].mean(axis=1) for c in range(CLASSES)], axis=1
    )
    low, high = by_class.min(axis=1, keepdims=True), by_class.max(axis=1, keepdims=True)
    x = np.concatenate([(by_class - low) / (high - low), np.eye(CLASSES)[labels]], axis=1)
    layers = method.uncertainty.layers
    x = linear(x, layers[0])
    x = np.where(x > 0, x, numpy_of(layers[1].weight) * x)
    return 1.0 / (1.0 + np.exp(-linear(x, layers[2])[:, 0]))
