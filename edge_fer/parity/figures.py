"""The figures a report lists beside its gates: both models' scores, divergences and cosines."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edge_fer.parity import intervals, metrics
from edge_fer.parity.metrics import FloatArray, IntArray


def divergence_figures(expected: FloatArray, got: FloatArray) -> dict[str, object]:
    """Summarise how far the distributions of two models lie apart on the same (N, C) faces, in nat."""
    return {
        **_summary("js", metrics.jensen_shannon(expected, got)),
        **_summary("jeffreys", metrics.jeffreys(expected, got)),
        "max_abs_diff": float(np.abs(np.subtract(got, expected, dtype=np.float64)).max()),
    }


def _summary(name: str, divergence: NDArray[np.float64]) -> dict[str, object]:
    p50, p95 = np.quantile(divergence, [0.5, 0.95])
    return {
        f"{name}_mean": float(divergence.mean()),
        f"{name}_p50": float(p50),
        f"{name}_p95": float(p95),
        f"{name}_max": float(divergence.max()),
    }


def embedding_figures(expected: FloatArray | None, got: FloatArray | None) -> dict[str, object]:
    """Summarise the cosine between the (N, D) embeddings of two models; nothing when one has none."""
    if expected is None or got is None:
        return {}
    cosine = metrics.embedding_cosine(expected, got)
    return {"embedding_cosine_mean": float(cosine.mean()), "embedding_cosine_min": float(cosine.min())}


def label_figures(
    expected: FloatArray,
    got: FloatArray,
    primary: FloatArray,
    reference_primary: FloatArray,
    labels: IntArray,
) -> dict[str, object]:
    """Score both models against the true labels.

    Args:
        expected: (N, C) `probabilities` of the float checkpoint.
        got: (N, C) `probabilities` of the bundle.
        primary: (N, C) `primary` of the bundle.
        reference_primary: (N, C) `primary` of the float checkpoint.
        labels: (N,) true labels, none missing.
    """
    was, now = metrics.correct(expected, labels), metrics.correct(got, labels)
    lost, gained = int((was & ~now).sum()), int((~was & now).sum())
    scores: dict[str, object] = {
        "accuracy": metrics.accuracy(got, labels),
        "reference_accuracy": metrics.accuracy(expected, labels),
        "primary_accuracy": metrics.accuracy(primary, labels),
        "reference_primary_accuracy": metrics.accuracy(reference_primary, labels),
    }
    for name in ("mean_recall", "macro_f1", "ece", "brier", "nll", "temperature"):
        score = getattr(metrics, name)
        scores[name], scores[f"reference_{name}"] = score(got, labels), score(expected, labels)
    return scores | {
        "flips_to_wrong": lost,
        "flips_to_right": gained,
        "flips_between_wrong": int((metrics.flips(expected, got) & ~was & ~now).sum()),
        "mcnemar_p": intervals.mcnemar_exact(lost, gained),
    }


def plain(value: object) -> object:
    """Return the value in plain JSON types: numpy numbers as Python's, tuples as lists, NaN as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int)) else str(value)
