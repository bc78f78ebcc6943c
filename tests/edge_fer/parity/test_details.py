"""The whole object `details` of parity.json: its keys, size and bytes, and what is null without labels."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from edge_fer.engines.base import Outputs
from edge_fer.labels import LABELS
from edge_fer.parity.details import details
from edge_fer.parity.gates import Thresholds
from edge_fer.samples import Reference
from tests.edge_fer.parity.answers import answers, seeds

OUTCOMES = ("to_wrong", "to_right", "between_wrong")
FLIPS = {"faces", "flips", "share", "interval", *OUTCOMES}
KEYS = {
    "recall": {
        "label",
        "faces",
        "gated",
        *(f"{a}{b}" for a in ("", "reference_") for b in ("recall", "interval")),
    }
    | {"change", "change_interval"},
    "flips_by_class": {"label", *FLIPS},
    "flips_by_confidence": {"from", "to", *FLIPS},
    "head": {
        *("relabelled", "reference_relabelled", "relabelled_share", "relabelled_interval"),
        *("reference_relabelled_share", "relabelled_both", "relabelled_same", "agreement"),
        *("agreement_interval", "primary_flips", "primary_js_mean", "primary_js_p95", "primary_max_abs_diff"),
        *("correction_js_mean", "reference_correction_js_mean", "reliability_shift_mean"),
        *("reliability_shift_p95", "reliability_shift_max"),
    },
    "abstention": {
        *("threshold", "origin", "coverage", "coverage_interval", "reference_coverage", "kept_both"),
        *(f"{a}{b}" for a in ("", "reference_") for b in ("risk", "risk_interval", "aurc")),
        *("dropped_by_bundle", "kept_by_bundle"),
    },
    "curves": {
        *("calibration", "reference_calibration", "risk_coverage", "divergence", "confidence", "reliability"),
    },
    "worst": {
        *("face", "hash", "label", "from", "to", "js", "reference", "bundle", "reference_primary", "primary"),
    },
}


def described(pair: tuple[Reference, Outputs]) -> dict[str, object]:
    return details(*pair, threshold=0.5, origin="bundle", limits=Thresholds())


def without_labels(pair: tuple[Reference, Outputs]) -> tuple[Reference, Outputs]:
    return replace(pair[0], labels=np.full(len(pair[0].labels), -1, np.int16)), pair[1]


@pytest.mark.parametrize("faces", [1, 80])
def test_every_key_is_there_with_and_without_labels(faces: int) -> None:
    pair = answers(1, faces, unlabelled=0.0)
    for found in (described(pair), described(without_labels(pair))):
        assert list(found) == [
            *("labels", "recall", "flip_matrix", "flips_by_direction", "flips_by_class"),
            *("flips_by_confidence", "head", "abstention", "curves", "worst"),
        ]
        assert found["labels"] == list(LABELS)
        for name, keys in KEYS.items():
            section = found[name]
            for row in section if isinstance(section, list) else [section or dict.fromkeys(keys)]:
                assert set(row) == keys


def test_without_labels_only_what_needs_none_is_left() -> None:
    pair = answers(1)
    with_labels, found = described(pair), described(without_labels(pair))
    assert found["recall"] is None
    for name in ("flips_by_class", "flips_by_confidence"):
        assert {row[key] for row in found[name] for key in OUTCOMES} == {None}
        for row, other in zip(found[name], with_labels[name], strict=True):
            assert {**row, **dict.fromkeys(OUTCOMES)} == {**other, **dict.fromkeys(OUTCOMES)}
    assert found["head"] == with_labels["head"]
    assert found["flip_matrix"] == with_labels["flip_matrix"]
    assert {row["label"] for row in found["worst"]} == {None}


def test_recall_is_of_the_labelled_faces() -> None:
    pair = answers(6)
    rows = described(pair)["recall"]
    known = pair[0].labels[pair[0].labels >= 0]
    assert 0 < len(known) < 80
    assert [row["faces"] for row in rows] == np.bincount(known, minlength=8).tolist()


def test_without_faces_there_are_no_details() -> None:
    reference, outputs = answers(0, 1)
    none = replace(
        reference,
        labels=reference.labels[:0],
        hashes=reference.hashes[:0],
        probabilities=reference.probabilities[:0],
        primary=reference.primary[:0],
        reliability=reference.reliability[:0],
    )
    empty = Outputs(outputs.probabilities[:0], outputs.primary[:0], outputs.reliability[:0])
    assert described((none, empty)) == {}


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_the_sections_agree_on_how_many_flipped(seed: int) -> None:
    pair = answers(seed, 1 + seed % 60, coarse=bool(seed % 2))
    found = described(pair)
    matrix = np.array(found["flip_matrix"])
    flips = matrix.sum() - np.trace(matrix)
    assert sum(found["flips_by_direction"].values()) == flips
    assert sum(row["flips"] for row in found["flips_by_class"]) == flips
    assert sum(row["flips"] for row in found["flips_by_confidence"]) == flips
    assert len(found["curves"]["confidence"]["flips"]) == flips
    assert sum(row["from"] != row["to"] for row in found["worst"]) == min(flips, 24)
    assert [row["faces"] for row in found["flips_by_class"]] == matrix.sum(axis=1).tolist()


def test_the_same_inputs_give_the_same_bytes_and_a_broken_head_no_bytes_that_are_not_json() -> None:
    pair = answers(3)
    assert json.dumps(described(pair)) == json.dumps(described(answers(3)))
    primary, reliability = pair[1].primary.copy(), pair[1].reliability.copy()
    primary[0], reliability[0] = np.nan, np.nan
    found = described((pair[0], replace(pair[1], primary=primary, reliability=reliability)))
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text) == found
    assert found["head"]["primary_js_mean"] is None


@pytest.mark.parametrize("noise", [0.1, 4.0])
def test_the_details_of_a_large_set_stay_small(noise: float) -> None:
    assert len(json.dumps(described(answers(7, 3553, noise=noise)))) < 60_000
