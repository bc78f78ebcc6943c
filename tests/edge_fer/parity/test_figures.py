"""The flat figures: divergences, temperatures and embeddings, against scipy and numpy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import rel_entr, softmax
from sklearn.metrics import f1_score, log_loss

from edge_fer.parity import figures
from tests.edge_fer.parity.answers import answers


def test_divergences_are_summarised_face_by_face() -> None:
    reference, outputs = answers(1, 200)
    p, q = (side.probabilities.astype(float) for side in (reference, outputs))
    p, q = (rows / rows.sum(axis=1, keepdims=True) for rows in (p, q))
    middle = (p + q) / 2
    js = (rel_entr(p, middle) + rel_entr(q, middle)).sum(axis=1) / 2
    smooth = [(rows + 1e-6) / (1 + 8e-6) for rows in (p, q)]
    jeffreys = (rel_entr(*smooth) + rel_entr(*smooth[::-1])).sum(axis=1)
    expected = {
        f"{name}_{key}": value
        for name, each in (("js", js), ("jeffreys", jeffreys))
        for key, value in (
            ("mean", each.mean()),
            ("p50", np.median(each)),
            ("p95", np.percentile(each, 95)),
            ("max", each.max()),
        )
    }
    expected["max_abs_diff"] = abs(
        outputs.probabilities.astype(float) - reference.probabilities.astype(float)
    ).max()
    found = figures.divergence_figures(reference.probabilities, outputs.probabilities)
    assert found == pytest.approx(expected, abs=1e-9)


def test_labels_score_both_models() -> None:
    reference, outputs = answers(3, unlabelled=0.0)
    found = figures.label_figures(
        reference.probabilities,
        outputs.probabilities,
        outputs.primary,
        reference.primary,
        reference.labels,
    )
    for prefix, side in (("", outputs), ("reference_", reference)):
        p, labels = side.probabilities.astype(float), reference.labels
        p /= p.sum(axis=1, keepdims=True)
        expected = {
            f"{prefix}accuracy": (p.argmax(axis=1) == labels).mean(),
            f"{prefix}primary_accuracy": (side.primary.argmax(axis=1) == labels).mean(),
            f"{prefix}macro_f1": f1_score(labels, p.argmax(axis=1), average="macro"),
            f"{prefix}nll": log_loss(labels, p, labels=range(8)),
        }
        assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-6)
        at_best = _loss(p, labels, found[f"{prefix}temperature"])
        others = [_loss(p, labels, found[f"{prefix}temperature"] * factor) for factor in (0.99, 1.01)]
        assert at_best < min(others)


def _loss(p: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    return float(log_loss(labels, softmax(np.log(p) / temperature, axis=1), labels=range(8)))


def test_embeddings_are_summarised_where_both_have_one() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 9, 4)).astype(np.float32)
    cosines = [float(x @ y / np.linalg.norm(x) / np.linalg.norm(y)) for x, y in zip(a, b, strict=True)]
    expected = {"embedding_cosine_mean": np.mean(cosines), "embedding_cosine_min": min(cosines)}
    assert figures.embedding_figures(a, b) == pytest.approx(expected, abs=1e-6)
    assert figures.embedding_figures(a, None) == figures.embedding_figures(None, b) == {}
