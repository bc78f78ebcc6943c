"""The figures of one checkpoint, against NumPy and SciPy on answers made up here."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from edge_fer.errors import TrainingError
from training.evaluate.answers import Answers, answer
from training.evaluate.figures import (
    anchor_figures,
    balancing_figures,
    class_rows,
    cluster_figures,
    scores,
    vote_figures,
)
from training.evaluate.projection import project
from training.models import build

CLASSES, FACES = 4, 60
CHANCE = np.random.default_rng(5)
LABELS = CHANCE.integers(0, CLASSES, FACES)
BEFORE, AFTER = (CHANCE.dirichlet(np.full(CLASSES, 0.6), FACES).astype(np.float32) for _ in range(2))
NAMES = ("neutral", "happiness", "surprise", "sadness")


def made_up() -> Answers:
    """Answers whose two distributions have nothing to do with each other."""
    return Answers(
        probabilities=AFTER,
        primary=BEFORE,
        reliability=AFTER.max(axis=1),
        primary_reliability=BEFORE.max(axis=1),
        embedding=CHANCE.normal(size=(FACES, 6)).astype(np.float32),
        correction_weight=np.linspace(0.2, 0.4, FACES, dtype=np.float32),
        anchor_weight=np.linspace(0.5, 0.9, FACES, dtype=np.float32),
        nearest=None,
    )


def test_the_risk_is_of_the_most_reliable_four_fifths() -> None:
    reliability = AFTER.max(axis=1)
    surest = np.argsort(-reliability)[: math.ceil(0.8 * FACES)]
    wrong = (AFTER.argmax(axis=1) != LABELS)[surest]
    found = scores(AFTER, reliability, LABELS)
    assert found["risk_at_80"] == pytest.approx(wrong.mean())
    curve = found["risk_coverage"]
    assert isinstance(curve, dict)
    at = np.searchsorted(curve["coverage"], 0.8)
    assert curve["risk"][at] == pytest.approx(wrong.mean())


def test_a_class_has_its_recall_with_the_exact_interval_and_its_share_of_the_errors() -> None:
    right = AFTER.argmax(axis=1) == LABELS
    for number, row in enumerate(class_rows(AFTER, LABELS, NAMES)):
        own = right[number == LABELS]
        interval = binomtest(int(own.sum()), len(own)).proportion_ci(0.95, method="exact")
        assert row["label"] == NAMES[number] and row["faces"] == len(own)
        assert row["recall"] == pytest.approx(own.mean())
        assert row["interval"] == pytest.approx((interval.low, interval.high), abs=1e-6)
        assert row["errors"] == (~own).sum()
        assert row["error_share"] == pytest.approx((~own).sum() / (~right).sum())


def test_balancing_is_judged_face_by_face() -> None:
    answers = made_up()
    was, now = (rows.argmax(axis=1) == LABELS for rows in (BEFORE, AFTER))
    lost, gained = int((was & ~now).sum()), int((now & ~was).sum())
    changed = BEFORE.argmax(axis=1) != AFTER.argmax(axis=1)
    found = balancing_figures(answers, LABELS)
    assert lost != gained and found["to_right"] == gained and found["to_wrong"] == lost
    assert found["changed"] == changed.sum()
    assert found["between_wrong"] == (changed & ~was & ~now).sum()
    assert found["mcnemar_p"] == pytest.approx(binomtest(lost, lost + gained).pvalue)
    assert found["correction_weight"] == pytest.approx(0.3) and found["anchor_weight"] == pytest.approx(0.7)
    for key, rows in (("primary", BEFORE), ("probabilities", AFTER)):
        assert found[key] == pytest.approx(
            {
                "highest_mean": rows.max(axis=1).mean(),
                "highest_max": rows.max(),
                "lowest_mean": rows.min(axis=1).mean(),
                "lowest_min": rows.min(),
                "deviation_mean": rows.std(axis=1).mean(),
            },
            rel=1e-5,
        )


def test_votes_are_compared_by_jeffreys_divergence_where_there_are_some() -> None:
    votes = CHANCE.integers(0, 6, (FACES, CLASSES)).astype(np.float32)
    votes[:7] = 0.0
    p, q = ((rows + 1e-6) for rows in (AFTER[7:].astype(float), votes[7:] / votes[7:].sum(1, keepdims=True)))
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    divergence = ((p - q) * np.log(p / q)).sum(axis=1)
    found = vote_figures(AFTER, votes)
    assert found["faces"] == FACES - 7 and found["smoothing"] == 1e-6
    assert found["jeffreys_mean"] == pytest.approx(divergence.mean(), rel=1e-5)
    assert found["jeffreys_p50"] == pytest.approx(np.median(divergence), rel=1e-5)


def test_anchors_are_measured_by_the_embeddings() -> None:
    anchors = CHANCE.normal(0.0, 3.0, (CLASSES, 2, 6)).astype(np.float32)
    embedding = made_up().embedding
    nearest = CHANCE.integers(0, 5, FACES)
    found = anchor_figures(nearest, anchors, embedding, NAMES)
    ratio = np.sqrt((anchors**2).mean() / (embedding**2).mean())
    assert found["rms_ratio"] == pytest.approx(ratio, rel=1e-5)
    assert (found["used"], found["used_share"]) == (5, 5 / 8)


def test_the_classes_part_in_the_plane_as_scikit_learn_says() -> None:
    # Two far groups of faces: wherever t-SNE lays them, they part; with the labels shuffled they do not.
    labels = np.repeat([0, 1], (26, 14))
    embedding = (9.0 * labels[:, None] + CHANCE.normal(0.0, 0.1, (40, 6))).astype(np.float32)
    projection = project(embedding)
    assert projection is not None and projection.rows.tolist() == list(range(40))
    assert projection.perplexity == pytest.approx(13.0)  # a third of the other faces, where 30 is too many
    shuffled = CHANCE.permutation(labels)
    apart, dealt = (cluster_figures(projection.places, given) for given in (labels, shuffled))
    assert apart["davies_bouldin"] < 0.5 < dealt["davies_bouldin"]  # type: ignore[operator]
    assert apart["calinski_harabasz"] > 100 > dealt["calinski_harabasz"]  # type: ignore[operator]
    assert project(embedding[:4]) is None


def test_too_many_faces_at_once_for_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build("grefel-lite-s", classes=CLASSES, input_size=32)
    crops = torch.zeros((9, 32, 32, 3), dtype=torch.uint8)
    for size, said in ((2**50, "no memory for 4 faces at once; give a smaller --batch"), (-1, "negative")):
        monkeypatch.setattr(network, "forward", lambda _, size=size: torch.empty(size))
        with pytest.raises(TrainingError if size > 0 else RuntimeError, match=said):
            answer(network, crops, torch.device("cpu"), 4)


def test_answers_are_those_of_eval_mode_in_any_parts() -> None:
    network = build("grefel-lite-s", classes=CLASSES, input_size=32)
    crops = torch.from_numpy(CHANCE.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8))
    with torch.inference_mode():
        said = network.eval()(crops.permute(0, 3, 1, 2).float() / 127.5 - 1.0)
    for batch in (9, 4):
        found = answer(network.train(), crops, torch.device("cpu"), batch)
        np.testing.assert_allclose(found.probabilities, said.probabilities, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.embedding, said.embedding, rtol=1e-4, atol=1e-5)
        for rows, sure in (
            (said.probabilities, found.reliability),
            (said.primary, found.primary_reliability),
        ):
            entropy = -(rows * rows.log()).sum(dim=1) / math.log(CLASSES)
            np.testing.assert_allclose(sure, 1.0 - entropy, rtol=1e-3, atol=1e-5)
