"""The reliability head and abstention, counted again face by face."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.spatial.distance import jensenshannon
from scipy.stats import binomtest

from edge_fer.engines.base import Outputs
from edge_fer.parity.head import abstention_figures, head_figures
from edge_fer.samples import Reference
from tests.edge_fer.parity.answers import answers, answers_of, certain, seeds


def divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return jensenshannon(p.astype(float), q.astype(float), axis=1) ** 2


def exact(count: int, total: int) -> object:
    interval = binomtest(count, total).proportion_ci(0.95, method="exact")
    return pytest.approx((interval.low, interval.high), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_the_head_agrees_with_a_count_of_every_face(seed: int) -> None:
    reference, outputs = answers(seed, coarse=bool(seed % 2))
    found = head_figures(reference, outputs, 0.95)
    changes = [  # what balancing did to each face: the new label, or None
        [int(b) if a != b else None for a, b in zip(p.argmax(1), q.argmax(1), strict=True)]
        for p, q in ((reference.primary, reference.probabilities), (outputs.primary, outputs.probabilities))
    ]
    was, now = changes
    pairs, faces = list(zip(was, now, strict=True)), len(was)
    assert found["reference_relabelled"] == sum(new is not None for new in was)
    assert found["relabelled"] == sum(new is not None for new in now)
    assert found["relabelled_share"] == found["relabelled"] / faces
    assert found["reference_relabelled_share"] == found["reference_relabelled"] / faces
    assert found["relabelled_both"] == sum(a is not None and b is not None for a, b in pairs)
    assert found["relabelled_same"] == sum(a is not None and a == b for a, b in pairs)
    agreed = sum(a == b for a, b in pairs)
    assert found["agreement"] == agreed / faces
    assert found["agreement_interval"] == exact(agreed, faces)
    assert found["relabelled_interval"] == exact(found["relabelled"], faces)


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_primary_correction_and_reliability_agree_with_scipy(seed: int) -> None:
    reference, outputs = answers(seed)
    found = head_figures(reference, outputs, 0.95)
    primary = divergence(reference.primary, outputs.primary)
    shift = outputs.reliability.astype(float) - reference.reliability.astype(float)
    expected = {
        "primary_flips": (reference.primary.argmax(axis=1) != outputs.primary.argmax(axis=1)).sum(),
        "primary_js_mean": primary.mean(),
        "primary_js_p95": np.quantile(primary, 0.95),
        "primary_max_abs_diff": abs(outputs.primary.astype(float) - reference.primary).max(),
        "correction_js_mean": divergence(outputs.primary, outputs.probabilities).mean(),
        "reference_correction_js_mean": divergence(reference.primary, reference.probabilities).mean(),
        "reliability_shift_mean": shift.mean(),
        "reliability_shift_p95": np.quantile(abs(shift), 0.95),
        "reliability_shift_max": abs(shift).max(),
    }
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_relabelling_to_another_label_is_no_agreement() -> None:
    reference, outputs = answers_of([0, 0, 0], certain([1, 2, 0]), certain([1, 3, 0]))
    unbalanced = certain([0, 0, 0])
    found = head_figures(
        replace(reference, primary=unbalanced), replace(outputs, primary=unbalanced), confidence=0.95
    )
    assert (found["relabelled"], found["reference_relabelled"]) == (2, 2)
    assert (found["relabelled_both"], found["relabelled_same"]) == (2, 1)
    assert found["agreement"] == pytest.approx(2 / 3)
    assert found["primary_flips"] == 0


def test_an_identical_head_agrees_everywhere() -> None:
    reference, _ = answers(1)
    twin = Outputs(reference.probabilities, reference.primary, reference.reliability)
    found = head_figures(reference, twin, 0.95)
    assert found["agreement"] == 1.0
    assert found["relabelled_both"] == found["relabelled_same"] == found["relabelled"]
    still = ("primary_flips", "primary_js_mean", "primary_max_abs_diff", "reliability_shift_max")
    assert {found[key] for key in still} == {0}


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_abstention_agrees_with_a_count_of_every_face(seed: int) -> None:
    reference, outputs = answers(seed, coarse=bool(seed % 2))
    threshold = float(np.sort(reference.reliability)[16])
    found = abstention_figures(reference, outputs, threshold, "bundle", 0.95)
    assert (found["threshold"], found["origin"]) == (threshold, "bundle")
    kept, reference_kept = (
        {row for row, r in enumerate(side.reliability.tolist()) if r >= threshold}
        for side in (outputs, reference)
    )
    faces = len(reference.labels)
    assert (found["coverage"], found["reference_coverage"]) == (
        len(kept) / faces,
        len(reference_kept) / faces,
    )
    assert found["coverage_interval"] == exact(len(kept), faces)
    assert found["kept_both"] == len(kept & reference_kept)
    assert found["dropped_by_bundle"] == len(reference_kept - kept)
    assert found["kept_by_bundle"] == len(kept - reference_kept)
    for prefix, side, rows in (("", outputs, kept), ("reference_", reference, reference_kept)):
        labelled = [row for row in sorted(rows) if reference.labels[row] >= 0]
        wrong = sum(bool(side.probabilities[row].argmax() != reference.labels[row]) for row in labelled)
        assert found[f"{prefix}risk"] == wrong / len(labelled)
        assert found[f"{prefix}risk_interval"] == exact(wrong, len(labelled))


def test_the_curve_area_is_that_of_the_model_it_is_named_after() -> None:
    """A model that is sure where it is right has a smaller area than one that is sure where it is wrong."""
    faces = np.full((4, 8), 0.01, np.float32)
    faces[:, 0] = [0.93, 0.8, 0.7, 0.6]
    reference, outputs = answers_of([0, 0, 1, -1], faces, faces[::-1].copy())
    found = abstention_figures(reference, outputs, 0.0, "bundle", 0.95)
    assert found["reference_aurc"] < found["aurc"]


def _without_labels(reference: Reference) -> Reference:
    return replace(reference, labels=np.full(len(reference.labels), -1, np.int16))


def test_without_labels_coverage_is_left() -> None:
    reference, outputs = answers(3)
    found = abstention_figures(_without_labels(reference), outputs, 0.4, "bundle", 0.95)
    risks = {key for key in found if key.removeprefix("reference_") in ("risk", "risk_interval", "aurc")}
    assert len(risks) == 6
    assert {key for key, value in found.items() if value is None} == risks


@pytest.mark.parametrize(("threshold", "coverage"), [(1.0, 0.0), (0.0, 1.0)])
def test_nothing_kept_has_no_risk(threshold: float, coverage: float) -> None:
    reference, outputs = answers(3)
    found = abstention_figures(reference, outputs, threshold, "bundle", 0.95)
    assert found["coverage"] == found["reference_coverage"] == coverage
    assert (found["risk"] is None, found["risk_interval"] is None) == (coverage == 0, coverage == 0)


def test_a_face_at_the_threshold_is_kept_and_one_that_is_not_a_number_is_not() -> None:
    reference, outputs = answers_of([0, 0], certain([0, 0]), certain([0, 0]))
    broken = replace(outputs, reliability=np.array([1.0, np.nan], np.float32))
    found = abstention_figures(reference, broken, 1.0, "bundle", 0.95)
    assert (found["kept_both"], found["dropped_by_bundle"]) == (1, 1)
