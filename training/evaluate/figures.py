"""Every figure of one checkpoint on its faces, as plain values; the arithmetic is `edge_fer.parity`'s."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_fer.parity import intervals, metrics, risk
from edge_fer.parity.curves import calibration_bins
from edge_fer.parity.gates import Thresholds
from edge_fer.parity.rates import change_interval, share_interval
from training.evaluate.answers import Answers, Floats

Values = dict[str, object]
LIMITS = Thresholds()
COVERAGE = 0.8
"""The share of faces that the abstention threshold keeps, as in the parity report."""


def scores(probabilities: Floats, reliability: Floats, labels: NDArray[np.int64]) -> Values:
    """Score one distribution per face: rates, calibration, confusion matrix and risk-coverage curve.

    Args:
        probabilities: (N, C).
        reliability: (N,), by which faces are abstained from.
        labels: (N,) true labels.
    """
    right = metrics.correct(probabilities, labels)
    coverage, wrong = risk.risk_coverage(right, reliability)
    kept = reliability >= risk.abstention_threshold(reliability, COVERAGE)
    return {
        "accuracy": metrics.accuracy(probabilities, labels),
        "accuracy_interval": share_interval(int(right.sum()), len(right), LIMITS.confidence),
        "mean_recall": metrics.mean_recall(probabilities, labels),
        "macro_f1": metrics.macro_f1(probabilities, labels),
        "ece": metrics.ece(probabilities, labels),
        "brier": metrics.brier(probabilities, labels),
        "nll": metrics.nll(probabilities, labels),
        "temperature": metrics.temperature(probabilities, labels),
        "aurc": risk.aurc(right, reliability),
        "risk_at_80": float((~right[kept]).mean()),
        "reliability_mean": float(reliability.mean(dtype=np.float64)),
        "confusion": metrics.confusion(probabilities, labels),
        "calibration": calibration_bins(probabilities, labels),
        "risk_coverage": {"coverage": coverage, "risk": wrong},
    }


def class_rows(probabilities: Floats, labels: NDArray[np.int64], names: Sequence[str]) -> list[Values]:
    """List by class its faces, its recall with the interval, and which share of all errors it is."""
    matrix = metrics.confusion(probabilities, labels)
    recall, shares = (
        figure(probabilities, labels) for figure in (metrics.recall_per_class, metrics.error_shares)
    )
    return [
        {
            "label": name,
            "faces": int(row.sum()),
            "recall": recall[index],
            "interval": share_interval(int(row[index]), int(row.sum()), LIMITS.confidence),
            "errors": int(row.sum() - row[index]),
            "error_share": shares[index],
        }
        for index, (name, row) in enumerate(zip(names, matrix, strict=True))
    ]


def balancing_figures(answers: Answers, labels: NDArray[np.int64]) -> Values:
    """Say what balancing did: labels it changed, the paired gain of accuracy, weights, spread of the rows."""
    was, now = (metrics.correct(rows, labels) for rows in (answers.primary, answers.probabilities))
    lost, gained = int((was & ~now).sum()), int((~was & now).sum())
    changed = metrics.flips(answers.primary, answers.probabilities)
    return {
        "changed": int(changed.sum()),
        "to_right": gained,
        "to_wrong": lost,
        "between_wrong": int(changed.sum()) - gained - lost,
        "gain": (gained - lost) / len(labels),
        "gain_interval": change_interval(lost, gained, len(labels), LIMITS),
        "mcnemar_p": intervals.mcnemar_exact(lost, gained),
        "correction_weight": float(answers.correction_weight.mean(dtype=np.float64)),
        "anchor_weight": float(answers.anchor_weight.mean(dtype=np.float64)),
        "js_mean": float(metrics.jensen_shannon(answers.primary, answers.probabilities).mean()),
        "primary": _spread_figures(answers.primary),
        "probabilities": _spread_figures(answers.probabilities),
    }


def _spread_figures(probabilities: Floats) -> Values:
    found = metrics.spread(probabilities)
    return {
        "highest_mean": float(found.highest.mean()),
        "highest_max": float(found.highest.max()),
        "lowest_mean": float(found.lowest.mean()),
        "lowest_min": float(found.lowest.min()),
        "deviation_mean": float(found.deviation.mean()),
    }


def anchor_figures(
    nearest: NDArray[np.int64], anchors: Floats, embedding: Floats, names: Sequence[str]
) -> Values:
    """Say which anchors (C, K, D) work, and whether they ran away from the embeddings (N, D).

    `rms` is per dimension: an anchor that ran away has many times that of the embeddings.
    """
    counts = metrics.nearest_counts(nearest, *anchors.shape[:2])
    own, faces = metrics.rms(anchors), metrics.rms(embedding)
    return {
        "total": counts.size,
        "used": int((counts > 0).sum()),
        "used_share": float((counts > 0).mean()),
        "rms": float(metrics.rms(anchors.reshape(-1))),
        "rms_max": float(own.max()),
        "rms_ratio": float(metrics.rms(anchors.reshape(-1)) / metrics.rms(embedding.reshape(-1))),
        "embedding_rms": float(metrics.rms(embedding.reshape(-1))),
        "embedding_rms_max": float(faces.max()),
        "per_class": [
            {"label": name, "used": int((row > 0).sum()), "nearest": row, "rms": lengths}
            for name, row, lengths in zip(names, counts, own, strict=True)
        ],
    }


def vote_figures(probabilities: Floats, votes: NDArray[np.float32]) -> Values:
    """Compare with what people voted, (N, C): Jeffreys' divergence, smoothed by 1e-6 and normalised again.

    Faces that nobody voted a class for are left out.
    """
    voted = votes.sum(axis=1) > 0
    divergence = metrics.jeffreys(probabilities[voted], votes[voted])
    shannon = metrics.jensen_shannon(probabilities[voted], votes[voted])
    return {
        "faces": int(voted.sum()),
        "smoothing": metrics.JEFFREYS_SMOOTHING,
        "jeffreys_mean": float(divergence.mean()),
        "jeffreys_p50": float(np.median(divergence)),
        "js_mean": float(shannon.mean()),
    }


def cluster_figures(embedding: Floats, labels: NDArray[np.int64]) -> Values:
    """Return how well the classes part in the embeddings (N, D) or in a picture of them."""
    return {
        "faces": len(labels),
        "dimensions": embedding.shape[1],
        "davies_bouldin": metrics.davies_bouldin(embedding, labels),
        "calinski_harabasz": metrics.calinski_harabasz(embedding, labels),
    }
