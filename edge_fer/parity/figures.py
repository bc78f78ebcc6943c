"""The figures a report lists beside its gates: both models' scores, divergences, and where the flips went."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from edge_fer.parity import intervals, metrics
from edge_fer.parity.metrics import FloatArray, IntArray


def divergence_figures(expected: FloatArray, got: FloatArray) -> dict[str, object]:
    """Summarise how far the distributions of two models lie apart on the same (N, C) faces, in nat."""
    divergence = metrics.jensen_shannon(expected, got)
    p50, p95 = np.quantile(divergence, [0.5, 0.95])
    return {
        "js_mean": float(divergence.mean()),
        "js_p50": float(p50),
        "js_p95": float(p95),
        "js_max": float(divergence.max()),
        "jeffreys_mean": float(metrics.jeffreys(expected, got).mean()),
        "max_abs_diff": float(np.abs(np.subtract(got, expected, dtype=np.float64)).max()),
    }


def flip_figures(expected: FloatArray, got: FloatArray, names: Sequence[str]) -> dict[str, object]:
    """Count the changed labels and list from which label to which, most frequent first.

    Args:
        expected: (N, C) distributions of the float checkpoint.
        got: (N, C) distributions of the bundle.
        names: of the C classes.
    """
    changed = np.flatnonzero(metrics.flips(expected, got))
    pairs = zip(metrics.top1(expected[changed]).tolist(), metrics.top1(got[changed]).tolist(), strict=True)
    counted = Counter(f"{names[before]} -> {names[after]}" for before, after in pairs)
    directions = dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))
    return {"flips": len(changed), "flips_by_direction": directions}


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
    for name in ("mean_recall", "macro_f1", "ece", "brier", "nll"):
        score = getattr(metrics, name)
        scores[name], scores[f"reference_{name}"] = score(got, labels), score(expected, labels)
    return scores | {
        "flips_to_wrong": lost,
        "flips_to_right": gained,
        "flips_between_wrong": int((metrics.flips(expected, got) & ~was & ~now).sum()),
        "mcnemar_p": intervals.mcnemar_exact(lost, gained),
    }


def recall_figures(
    expected: FloatArray, got: FloatArray, labels: IntArray, names: Sequence[str]
) -> dict[str, object]:
    """List, by class, its faces and the recall of both models; None for a class without faces."""
    counts = np.bincount(labels, minlength=len(names))
    recalls = (metrics.recall_per_class(got, labels), metrics.recall_per_class(expected, labels))
    rows = zip(names, counts.tolist(), *(each.tolist() for each in recalls), strict=True)
    return {
        "recall_by_class": {
            name: {"faces": faces, "recall": recall, "reference_recall": reference}
            for name, faces, recall, reference in rows
        }
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
