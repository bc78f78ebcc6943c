"""Seeded distributions of two models that never were, for the tests of what a report looks like."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fer.labels import LABELS

COUNTS = (1335, 899, 456, 412, 319, 34, 74, 24)
Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a sample report tells: `noise` moves the bundle's logits; 0.1 passes, 0.3 is at the limit."""

    seed: int = 0
    noise: float = 0.12
    target: str = "onnx"
    precision: str = "int8"
    cpu_class: str = "x86-64 avx512-vnni"
    speed: float = 2.05
    labelled: bool = True
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Faces:
    labels: Array
    expected: Array
    got: Array
    expected_primary: Array
    got_primary: Array

    @classmethod
    def draw(cls, sample: Sample) -> Faces:
        rng = np.random.default_rng(sample.seed)
        labels = np.repeat(np.arange(len(LABELS)), COUNTS)
        labels = labels[rng.permutation(len(labels))][: int(len(labels) * sample.share)]
        logits = rng.normal(0, 1.5, (len(labels), len(LABELS))) + np.eye(len(LABELS))[labels] * 4.2
        logits[:, 0] += 0.8  # what is hard to tell reads as neutral
        moved = logits + rng.normal(0, sample.noise, logits.shape)
        return cls(labels, *(softmax(x * k) for k in (1.0, 0.8) for x in (logits, moved)))

    @property
    def before(self) -> Array:
        return self.expected.argmax(axis=1)

    @property
    def after(self) -> Array:
        return self.got.argmax(axis=1)

    @property
    def flipped(self) -> Array:
        return self.before != self.after

    @property
    def js(self) -> Array:
        middle = (self.expected + self.got) / 2
        return sum((p * np.log(p / middle)).sum(axis=1) for p in (self.expected, self.got)) / 2


def softmax(logits: Array) -> Array:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def reliability(p: Array) -> Array:
    return 1 + (p * np.log(p)).sum(axis=1) / np.log(p.shape[1])


def wilson(count: int, total: int, z: float = 1.645) -> list[float] | None:
    if not total:
        return None
    p, spread = count / total, z * z / total
    middle, half = p + spread / 2, z * np.sqrt(p * (1 - p) / total + spread / (4 * total))
    return [float(max(0, (middle - half) / (1 + spread))), float(min(1, (middle + half) / (1 + spread)))]


def digest(*names: object) -> str:
    return hashlib.sha256("/".join(map(str, names)).encode()).hexdigest()


def ece(p: Array, labels: Array) -> float:
    return float(
        sum(abs(row["confidence"] - row["accuracy"]) * row["share"] for row in calibration(p, labels))
    )


def calibration(p: Array, labels: Array) -> list[dict[str, float]]:
    top, right = p.max(axis=1), p.argmax(axis=1) == labels
    return [
        {
            "confidence": float(top[rows].mean()),
            "accuracy": float(right[rows].mean()),
            "share": len(rows) / len(p),
        }
        for rows in np.array_split(np.argsort(top), min(15, len(top)))
    ]
