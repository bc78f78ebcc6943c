"""Seeded answers of a float model and of a bundle that differs from it, as the parity modules take them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_fer.engines.base import Outputs
from edge_fer.labels import LABELS
from edge_fer.samples import Reference

seeds = st.integers(0, 2**32 - 1)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float32]:
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (p / p.sum(axis=1, keepdims=True)).astype(np.float32)


def answers(
    seed: int, faces: int = 80, *, noise: float = 1.0, unlabelled: float = 0.2, coarse: bool = False
) -> tuple[Reference, Outputs]:
    """Draw both models' outputs on the same faces.

    Args:
        seed: of everything drawn.
        faces: N.
        noise: what the bundle adds to the logits.
        unlabelled: share of faces without a label.
        coarse: round the logits to whole numbers, so that labels, confidences and reliabilities tie often.
    """
    generator = np.random.default_rng(seed)
    classes = len(LABELS)
    logits, balancing, error = (generator.normal(size=(faces, classes)) * s for s in (1.5, 0.7, noise))
    layers = [logits, logits + balancing, logits + error, logits + balancing + 1.3 * error]
    primary, final, got_primary, got = (softmax(np.rint(x) if coarse else x) for x in layers)
    labels = generator.integers(0, classes, faces)
    right = generator.random(faces) < 0.5
    labels[right] = final.argmax(axis=1)[right]
    labels[generator.random(faces) < unlabelled] = -1
    reference = Reference(
        labels=labels.astype(np.int16),
        hashes=np.array([f"{row:064x}" for row in range(faces)], dtype="<U64"),
        probabilities=final,
        primary=primary,
        reliability=final.max(axis=1),
        name="drawn",
        names=LABELS,
    )
    return reference, Outputs(got, got_primary, got.max(axis=1))


def certain(classes: list[int]) -> NDArray[np.float32]:
    """Return distributions that are exactly 1 at these classes, and 0 elsewhere."""
    return np.eye(len(LABELS), dtype=np.float32)[classes]


def answers_of(
    labels: list[int], before: NDArray[np.float32], after: NDArray[np.float32]
) -> tuple[Reference, Outputs]:
    """Return given answers; `primary` is the same, and the reliability the top probability."""
    reference = Reference(
        labels=np.array(labels, np.int16),
        hashes=np.array([f"{row:064x}" for row in range(len(labels))], dtype="<U64"),
        probabilities=before,
        primary=before,
        reliability=before.max(axis=1),
        name="given",
        names=LABELS,
    )
    return reference, Outputs(after, after, after.max(axis=1))
