"""A bundle's whole report: sound, with planted faults, on few faces, without labels, without faces."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fer.bundle import Bundle
from edge_fer.errors import BundleError, InputError
from edge_fer.labels import LABELS
from edge_fer.parity.comparison import Report, compare
from edge_fer.parity.figures import plain
from edge_fer.parity.gates import FP32, SAMPLED, SPEED, Gate
from edge_fer.parity.report import Faces, run_parity
from edge_fer.parity.schema import check_report
from edge_fer.parity.table import exit_code, table_rows
from tests.edge_fer.parity.conftest import EXPORTED, LinearEngine, World

NAMES = ["preprocess", "batch", "fp32 export", *SAMPLED, "speed"]


def verdicts(found: Report) -> dict[str, str]:
    return {gate.name: gate.verdict for gate in found.gates}


def swapped(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return logits[:, [1, 0, *range(2, 8)]]


def hot(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return logits / 1.5


@pytest.fixture(scope="module")
def bundle(world: World, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return world.bundle(tmp_path_factory.mktemp("bundle"))


def test_a_sound_bundle_passes_every_gate(world: World, bundle: Bundle) -> None:
    found = run_parity(bundle, LinearEngine(), Faces(world.reference, world.crops), exported=EXPORTED)
    assert verdicts(found) == dict.fromkeys(NAMES, "passed")
    assert found.verdict == "passed"
    assert found.faces == len(world.crops)
    assert found.figures["accuracy"] == found.figures["reference_accuracy"]
    assert found.figures["golden_max_abs_diff"] == 0.0


def test_faces_are_matched_by_their_pixels_in_any_order_and_part(world: World, bundle: Bundle) -> None:
    order = np.random.default_rng(1).permutation(len(world.crops))[:1400]
    found = run_parity(bundle, LinearEngine(), Faces(world.reference, world.crops[order]), exported=EXPORTED)
    assert found.verdict == "passed"
    assert found.faces == 1400 and found.reference is not None and found.reference["faces"] == 1500
    right = world.reference.probabilities.argmax(axis=1) == world.reference.labels
    assert found.figures["accuracy"] == pytest.approx(right[order].mean())


def test_a_picture_that_occurs_twice_takes_both_rows(world: World, bundle: Bundle) -> None:
    crops = np.concatenate([world.crops[:10], world.crops[:1]])
    rows = [*range(10), 0]
    twice = replace(
        world.reference,
        labels=np.append(world.reference.labels[:10], np.int16(5)),
        hashes=world.reference.hashes[rows],
        probabilities=world.reference.probabilities[rows],
        primary=world.reference.primary[rows],
        reliability=world.reference.reliability[rows],
    )
    found = run_parity(bundle, LinearEngine(), Faces(twice, crops))
    assert found.figures["max_abs_diff"] == 0.0
    with pytest.raises(InputError, match="got 1 of 11"):
        run_parity(bundle, LinearEngine(), Faces(world.part(10), crops))


def test_unknown_faces_are_counted(world: World, bundle: Bundle) -> None:
    crops = world.crops[:20].copy()
    crops[:3] ^= 1
    with pytest.raises(InputError, match="got 3 of 20 that are not in it"):
        run_parity(bundle, LinearEngine(), Faces(world.reference, crops))


def test_a_reference_for_other_labels_is_refused(world: World, bundle: Bundle) -> None:
    other = replace(world.reference, names=LABELS[::-1])
    with pytest.raises(InputError, match="expected reference outputs for neutral"):
        run_parity(bundle, LinearEngine(), Faces(other))


def test_permuted_labels_fail_every_gate_that_knows_classes(world: World, bundle: Bundle) -> None:
    found = run_parity(
        bundle, LinearEngine(change=swapped), Faces(world.reference, world.crops), exported=EXPORTED
    )
    failed = {name for name, verdict in verdicts(found).items() if verdict == "failed"}
    assert failed == set(SAMPLED) - {"reliability head"}  # entropy does not know which class is which
    assert found.verdict == "failed"
    directions = found.details["flips_by_direction"]
    assert isinstance(directions, dict)
    assert set(directions) == {"neutral -> happiness", "happiness -> neutral"}
    assert sum(directions.values()) == found.figures["flips"]


def test_a_temperature_fails_what_reads_probabilities_and_is_named(world: World, bundle: Bundle) -> None:
    found = run_parity(
        bundle, LinearEngine(change=hot), Faces(world.reference, world.crops), exported=EXPORTED
    )
    failed = {name for name, verdict in verdicts(found).items() if verdict == "failed"}
    assert failed == {"distribution", "calibration", "reliability head"}
    assert found.figures["repair_temperature"] == pytest.approx(1 / 1.5, rel=1e-3)
    assert found.figures["flips"] == 0
    assert found.figures["golden_max_abs_diff"] != 0.0


def test_embeddings_are_compared_where_both_have_one(world: World) -> None:
    generator = np.random.default_rng(4)
    expected, moved = generator.normal(size=(2, 1500, 5)).astype(np.float32)
    outputs = replace(LinearEngine().run(world.crops), embedding=moved)
    assert "embedding_cosine_mean" not in compare(world.reference, outputs).figures
    found = compare(replace(world.reference, embedding=expected), outputs).figures
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(moved, axis=1)
    cosines = (expected * moved).sum(axis=1) / lengths
    assert found["embedding_cosine_mean"] == pytest.approx(cosines.mean(), abs=1e-6)
    assert found["embedding_cosine_min"] == pytest.approx(cosines.min(), abs=1e-6)


def test_flips_of_unsure_faces_leave_the_surest_half_alone(world: World) -> None:
    outputs = LinearEngine().run(world.crops)
    unsure = outputs.probabilities.max(axis=1).argsort()[:90]
    outputs.probabilities[unsure] = np.roll(outputs.probabilities[unsure], 1, axis=1)
    gates = {gate.name: gate for gate in compare(world.reference, outputs).gates}
    everywhere, sure = gates["flips"], gates["flips, surest half"]
    assert (everywhere.value, everywhere.threshold, everywhere.verdict) == (0.06, 0.02, "failed")
    assert (sure.value, sure.threshold, sure.verdict) == (0.0, 0.005, "passed")


def test_figures_become_plain_json() -> None:
    value = {
        "a": np.float32(0.5),
        "b": [np.nan, float("inf")],
        "c": (np.int16(2), None, True),
        "d": np.ones(1),
    }
    assert plain(value) == {"a": 0.5, "b": [None, None], "c": [2, None, True], "d": [1.0]}


def test_fifty_faces_are_undecided(world: World, bundle: Bundle) -> None:
    found = run_parity(bundle, LinearEngine(), Faces(world.part(50), world.crops[:50]), exported=EXPORTED)
    assert verdicts(found)["flips"] == verdicts(found)["flips, surest half"] == "undecided"
    assert found.verdict == "undecided"


def test_without_labels_accuracy_and_calibration_are_not_run(world: World, bundle: Bundle) -> None:
    unlabelled = replace(world.reference, labels=np.full(len(world.crops), -1, np.int16))
    found = run_parity(bundle, LinearEngine(), Faces(unlabelled, world.crops), exported=EXPORTED)
    reasons = {gate.name: gate.reason for gate in found.gates if gate.verdict == "not run"}
    assert reasons == dict.fromkeys(("accuracy", "calibration", "per class"), "no labels")
    assert found.verdict == "passed"
    assert "accuracy" not in found.figures


def test_some_labels_score_the_labelled_faces_only(world: World) -> None:
    labels = world.reference.labels.copy()
    labels[:500] = -1
    found = compare(replace(world.reference, labels=labels), LinearEngine().run(world.crops))
    assert (found.figures["faces"], found.figures["labelled_faces"]) == (1500, 1000)
    right = world.reference.probabilities[500:].argmax(axis=1) == labels[500:]
    assert found.figures["accuracy"] == pytest.approx(right.mean())


@pytest.mark.parametrize("fault", [np.nan, np.inf, 2.0, -1.0])
def test_rows_that_are_no_distribution_fail(world: World, fault: float) -> None:
    outputs = LinearEngine().run(world.crops)
    outputs.probabilities[3] = [fault, 1 - fault, 0, 0, 0, 0, 0, 0.5 * (fault == 2)]
    found = compare(world.reference, outputs)
    assert set(verdicts(found).values()) == {"failed"}
    assert "1 of 1500 faces" in found.gates[0].reason
    json.dumps(found.to_json(), allow_nan=False)


def test_other_shapes_are_refused(world: World) -> None:
    with pytest.raises(InputError, match=r"expected outputs of shape \(10, 8\)"):
        compare(world.part(10), LinearEngine().run(world.crops[:9]))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_without_faces_the_golden_samples_are_left(world: World, tmp_path: Path, precision: str) -> None:
    bundle = world.bundle(tmp_path, precision)
    found = run_parity(bundle, LinearEngine(), Faces(world.reference))
    expected = {"preprocess": "passed", "batch": "passed", **dict.fromkeys(SAMPLED, "not run")}
    expected["fp32 export"] = "passed" if precision == "fp32" else "not run"
    expected["speed"] = "not run"
    assert verdicts(found) == expected
    assert found.faces == 0
    assert {gate.reason for gate in found.gates if gate.name in SAMPLED} == {"no faces were given"}


def test_an_untrained_bundle_runs_three_gates(world: World, tmp_path: Path) -> None:
    bundle = world.bundle(tmp_path, "fp32", untrained=True)
    found = run_parity(bundle, LinearEngine(), Faces(world.reference, world.crops))
    assert list(verdicts(found).values()) == ["passed"] * 3 + ["not run"] * 8
    reasons = {gate.reason for gate in found.gates if gate.verdict == "not run"}
    assert reasons == {"untrained"}
    assert found.verdict == "undecided"  # exact gates alone decide nothing


def test_the_fp32_gate_is_measured_on_an_fp32_bundle(world: World, tmp_path: Path) -> None:
    bundle = world.bundle(tmp_path, "fp32")
    found = run_parity(bundle, LinearEngine(change=hot), Faces(world.reference, world.crops))
    assert verdicts(found)["fp32 export"] == "failed"
    assert "of 1504 faces" in found.gates[2].reason  # the set and the golden samples


def test_what_only_export_measures_comes_from_the_certificate(
    world: World, tmp_path: Path, full_report: dict[str, Any]
) -> None:
    bundle = world.bundle(tmp_path, "int8", parity=json.dumps(full_report).encode())
    found = run_parity(bundle, LinearEngine(), Faces())
    assert found.gates[2] == replace(EXPORTED[FP32], reason=f"at export: {EXPORTED[FP32].reason}")
    assert found.gates[-1].verdict == "not run" and "2.50x at export" in found.gates[-1].reason
    assert {gate.reason for gate in found.gates if gate.name in SAMPLED} == {"there are no reference outputs"}


def test_a_graph_that_is_not_faster_says_size_only_and_passes(world: World, bundle: Bundle) -> None:
    slow = Gate(SPEED, 1.1, (1.0, 1.15), 1.2, "size only", "slow")
    found = run_parity(
        bundle, LinearEngine(), Faces(world.reference, world.crops), exported=EXPORTED | {SPEED: slow}
    )
    assert (found.verdict, found.size_only, found.gates[-1]) == ("passed", True, slow)
    assert not replace(found, gates=found.gates[:-1]).size_only


def test_a_certificate_that_cannot_be_read_is_named(
    world: World, tmp_path: Path, full_report: dict[str, Any]
) -> None:
    gates = [{**full_report["gates"][0], "value": "x"}, *full_report["gates"][1:]]
    bundle = world.bundle(tmp_path, "int8", parity=json.dumps({**full_report, "gates": gates}).encode())
    with pytest.raises(BundleError, match=r"parity\.json: the report: gates 0: value: expected number"):
        run_parity(bundle, LinearEngine(), Faces())


def test_progress_counts_up_to_all_faces(world: World, bundle: Bundle) -> None:
    seen: list[int] = []
    crops = world.crops[:150]
    run_parity(bundle, LinearEngine(), Faces(world.reference, crops), progress=seen.append)
    assert seen == [64, 128, 150]


def test_json_is_plain_complete_and_the_same_twice(world: World, bundle: Bundle) -> None:
    texts = [
        json.dumps(
            run_parity(bundle, LinearEngine(change=hot), Faces(world.reference, world.crops[:300])).to_json(),
            allow_nan=False,
        )
        for _ in range(2)
    ]
    assert texts[0] == texts[1]
    found = json.loads(texts[0])
    assert check_report(found)["schema"] == "edge-fer-parity-2"
    assert [gate["name"] for gate in found["gates"]] == NAMES
    assert set(found["gates"][0]) == {"name", "value", "interval", "threshold", "verdict", "reason"}
    assert found["bundle"]["labels"] == list(LABELS)
    assert found["environment"]["threads"] == 1
    assert {"accuracy", "mean_recall", "macro_f1", "ece", "brier", "nll", "mcnemar_p"} <= set(
        found["figures"]
    )
    assert {"js_mean", "js_p50", "js_p95", "js_max", "jeffreys_mean", "flips"} <= set(found["figures"])


def test_flips_by_what_they_did_to_the_answer_add_up(world: World) -> None:
    found = compare(world.reference, LinearEngine(change=swapped).run(world.crops)).figures
    parts = [found[f"flips_{name}"] for name in ("to_wrong", "to_right", "between_wrong")]
    assert sum(map(int, map(str, parts))) == found["flips"]


@pytest.mark.parametrize(
    ("verdict", "strict", "expected"),
    [
        ("passed", True, 0),
        ("passed", False, 0),
        ("undecided", False, 0),
        ("undecided", True, 3),
        ("failed", False, 3),
        ("failed", True, 3),
        ("not run", True, 0),
    ],
)
def test_exit_code(verdict: str, strict: bool, expected: int) -> None:
    assert exit_code(verdict, strict) == expected


def test_rows_of_the_table() -> None:
    gates = [
        Gate("accuracy", 0.99512, (0.991, 0.999), 0.99, "passed", "a"),
        Gate("flips", 0.0123, (0.01, 0.015), 0.02, "passed", "b"),
        Gate("calibration", -0.0021, (-0.004, 0.001), 0.01, "passed", "c"),
        Gate("fp32 export", 3.2e-6, None, 1e-4, "passed", "d"),
        Gate("distribution", None, None, None, "not run", "e"),
        Gate("per class", -0.0091, (-0.02, 0.001), -0.05, "passed", "f"),
        Gate("reliability head", 0.0012, (-0.001, 0.004), 0.01, "passed", "g"),
        Gate("speed", 1.1, (1.05, 1.16), 1.2, "size only", "h"),
    ]
    assert table_rows(gates) == [
        ("accuracy", "0.9951", "0.9910 .. 0.9990", ">= 0.9900", "passed", "a"),
        ("flips", "1.23%", "1.00% .. 1.50%", "<= 2.00%", "passed", "b"),
        ("calibration", "-0.0021", "-0.0040 .. +0.0010", "+- 0.0100", "passed", "c"),
        ("fp32 export", "3.2e-06", "", "<= 0.0001", "passed", "d"),
        ("distribution", "", "", "", "not run", "e"),
        ("per class", "-0.0091", "-0.0200 .. +0.0010", ">= -0.0500", "passed", "f"),
        ("reliability head", "+0.12%", "-0.10% .. +0.40%", "+- 1.00%", "passed", "g"),
        ("speed", "1.10x", "1.05x .. 1.16x", ">= 1.20x", "size only", "h"),
    ]
