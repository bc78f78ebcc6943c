"""Self-test: pixels, outputs, labels and latency against golden samples and certificate; exit codes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_fer.bundle import Bundle, Golden, ModelSpec, write_bundle
from edge_fer.engines import EngineOptions, Outputs
from edge_fer.parity.documents import document
from edge_fer.parity.environment import environment
from edge_fer.selftest import _check_labels, _check_outputs, run_self_test
from tests.conftest import certificate, error_lines, json_lines, run_command

Make = Callable[..., Path]
TIMES = ("p50", "p90", "p99", "fp32_p50", "fp32_p90", "fp32_p99", "ratio", "verdict", "threads")


@pytest.fixture
def make(tmp_path: Path, tiny_spec: ModelSpec, tiny_members: dict[str, bytes], tiny_golden: Golden) -> Make:
    """Write a tiny bundle with other golden samples, another precision or another certificate."""

    def write(golden: Golden | None = tiny_golden, certificate: object = "own", **spec: Any) -> Path:
        members = dict(tiny_members)
        if golden is None:
            del members["golden.npz"]
        else:
            members["golden.npz"] = golden.to_bytes()
        if certificate is None:
            del members["parity.json"]
        elif certificate != "own":
            members["parity.json"] = json.dumps(certificate).encode()
        return write_bundle(tmp_path / "t.fer", dataclasses.replace(tiny_spec, **spec), members).path

    return write


def certified(difference: float | None, here: bool = True, **latency: object) -> dict[str, object]:
    """Make a certificate of this machine, or of another one."""
    made_on = environment() if here else {**environment(), "cpu": "Other", "cpu_class": "riscv64"}
    figures: dict[str, object] = {} if difference is None else {"golden_max_abs_diff": difference}
    if latency:
        figures["latency_ms"] = {**dict.fromkeys(TIMES), **latency}
    return certificate(figures=figures, environment=made_on)


def shifted(golden: Golden, by: float) -> Golden:
    """Move one probability of the second sample, whose label stays."""
    probabilities = golden.probabilities.copy()
    probabilities[1, probabilities[1].argmin()] += np.float32(by)
    return dataclasses.replace(golden, probabilities=probabilities)


def run(path: Path, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    result = run_command("self-test", path, "--json", *arguments)
    (record,) = json_lines(result)
    assert list(record) == ["bundle", "verdict", "checks", "environment"] and record["bundle"] == str(path)
    assert record["verdict"] == ("failed" if result.exit_code else "passed")
    assert all(
        list(check) == ["name", "value", "threshold", "verdict", "reason"] for check in record["checks"]
    )
    assert "verdict" in result.stderr and "outputs" in result.stderr  # the table, also when it failed
    return result.exit_code, {check["name"]: check for check in record["checks"]}


def test_a_sound_bundle_passes(tiny_bundle: Path) -> None:
    code, checks = run(tiny_bundle)
    assert code == 0 and list(checks) == ["pixels", "outputs", "labels", "latency"]
    assert (checks["pixels"]["value"], checks["pixels"]["threshold"]) == (0, 0)
    assert checks["outputs"]["threshold"] == 1e-4 and checks["outputs"]["value"] < 1e-5
    assert checks["labels"]["value"] == 0
    assert checks["latency"]["verdict"] == "not run" and "not compared" in checks["latency"]["reason"]


def test_the_embedded_bundle_passes_here() -> None:
    result = run_command("self-test", "--json")
    (record,) = json_lines(result)
    assert (result.exit_code, record["verdict"]) == (0, "passed"), record
    assert record["bundle"].endswith("grefel-lite.fer")


def test_other_pixels_fail(make: Make, tiny_golden: Golden) -> None:
    crops = tiny_golden.crops.copy()
    crops[2, 5, 5, 1] ^= 1
    code, checks = run(make(dataclasses.replace(tiny_golden, crops=crops)))
    assert code == 3 and checks["pixels"]["verdict"] == "failed" and "sample 2" in checks["pixels"]["reason"]
    assert checks["labels"]["verdict"] == "passed"


@pytest.mark.parametrize(("by", "code"), [(0.9e-4, 0), (1.1e-4, 3), (-0.02, 3)])
def test_float_outputs_lie_within_the_fp32_gate(
    make: Make, tiny_golden: Golden, by: float, code: int
) -> None:
    found, checks = run(make(shifted(tiny_golden, by)))
    assert found == code
    assert checks["outputs"]["value"] == pytest.approx(abs(by), abs=1e-5)
    assert checks["outputs"]["verdict"] == ("failed" if code else "passed")


@pytest.mark.parametrize(
    ("precision", "here", "threshold"),
    [
        ("fp16", True, 0.004),
        ("fp32", False, 0.004),
        ("int8", True, 0.004 + 0.005),
        ("int8", False, 2 * 0.004 + 0.05),
    ],
)
def test_tolerances_follow_precision_and_cpu_class(
    make: Make, tiny_golden: Golden, precision: str, here: bool, threshold: float
) -> None:
    for by, code in ((threshold - 1e-4, 0), (threshold + 1e-4, 3)):
        path = make(shifted(tiny_golden, by), certified(0.004, here), precision=precision)
        found, checks = run(path)
        assert (found, checks["outputs"]["threshold"]) == (code, pytest.approx(threshold))
        if precision == "int8":
            assert ("another CPU class, riscv64" in checks["outputs"]["reason"]) == (not here)


def test_every_sample_has_its_own_tolerance(make: Make, tiny_golden: Golden) -> None:
    hard_third = {"golden_max_abs_diff": 0.3, "golden_abs_diffs": [0.0, 0.004, 0.3, 0.0]}
    for here, by, code in ((True, 0.0085, 0), (True, 0.0095, 3), (False, 0.057, 0), (False, 0.059, 3)):
        made_on = environment() if here else {**environment(), "cpu": "Other", "cpu_class": "riscv64"}
        own = certificate(figures=hard_third, environment=made_on)
        found, checks = run(make(shifted(tiny_golden, by), own, precision="int8"))
        assert found == code, checks
        assert checks["outputs"]["threshold"] == pytest.approx(0.009 if here else 0.058)
        assert "sample 1" in checks["outputs"]["reason"]
    short = certificate(figures={**hard_third, "golden_abs_diffs": [0.0]})  # of other samples: says nothing
    assert run(make(shifted(tiny_golden, 0.1), short, precision="int8"))[0] == 0


def test_a_certified_difference_below_the_gate_does_not_tighten_it(make: Make, tiny_golden: Golden) -> None:
    assert run(make(shifted(tiny_golden, 0.5e-4), certified(1e-7)))[0] == 0


def test_labels_may_flip_where_the_float_network_is_not_sure(tiny_golden: Golden) -> None:
    expected = np.full((3, 8), 0.01, np.float32)
    expected[:, 0], expected[:, 1] = (0.50, 0.49, 0.90), (0.44, 0.46, 0.04)
    golden = dataclasses.replace(tiny_golden, probabilities=expected)

    def changed(*rows: int) -> Outputs:
        got = expected.copy()
        for row in rows:
            got[row, [0, 1]] = got[row, [1, 0]]
        return Outputs(got, got, np.ones(3, np.float32))

    # Margins 0.06, 0.03, 0.86 against twice 0.02: the second one alone is a close call.
    for rows, wrong in (((), 0), ((1,), 0), ((0,), 1), ((0, 1, 2), 2)):
        check = _check_labels(golden, changed(*rows), np.full(3, 0.02))
        assert (check.value, check.verdict) == (wrong, "failed" if wrong else "passed")
        assert f"{len(rows)} of 3" in check.reason


@pytest.mark.parametrize("which", ["probabilities", "primary", "reliability"])
def test_what_is_no_number_fails(tiny_golden: Golden, which: str) -> None:
    arrays = {name: getattr(tiny_golden, name).copy() for name in ("probabilities", "primary", "reliability")}
    assert _check_outputs(tiny_golden, Outputs(**arrays), np.full(4, 0.5), "").verdict == "passed"
    arrays[which].flat[0] = np.nan
    check = _check_outputs(tiny_golden, Outputs(**arrays), np.full(4, 0.5), "")
    assert check.verdict == "failed"
    json.dumps(check.to_json(), allow_nan=False)


def test_latency_warns_and_does_not_fail(make: Make) -> None:
    code, checks = run(make(certificate=certified(0.0, p50=1e-6, threads=1)))
    assert (code, checks["latency"]["verdict"], checks["latency"]["threshold"]) == (0, "warning", 2)
    assert checks["latency"]["value"] > 2
    code, checks = run(make(certificate=certified(0.0, p50=1e6, threads=1)))
    assert (code, checks["latency"]["verdict"]) == (0, "passed") and 0 < checks["latency"]["value"] < 1


def test_latency_is_compared_on_the_same_processor_with_the_same_threads_alone(make: Make) -> None:
    other = make(certificate=certified(0.0, here=False, p50=1.0, threads=2))
    check = run(other)[1]["latency"]
    assert check["verdict"] == "not run" and "certified on Other" in check["reason"]
    path = make(certificate=certified(0.0, p50=1.0, threads=1))
    found = run_self_test(Bundle.load(path), EngineOptions())
    engine = found.environment["engine"]
    assert isinstance(engine, dict) and engine["threads"] == 1  # taken over from the certificate
    check = run(path, "--threads", "2")[1]["latency"]
    assert check["verdict"] == "not run" and "threads 1, this run has 2" in check["reason"]


def test_no_latency_of_an_emulated_processor_is_compared(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(certificate=certified(0.0, p50=1.0, threads=1))
    monkeypatch.setenv("EDGE_FER_EMULATED", "qemu-user 10.0, haswell")
    check = run(path)[1]["latency"]
    assert check["verdict"] == "not run" and "is emulated (qemu-user 10.0, haswell)" in check["reason"]


@pytest.mark.parametrize(
    "figures",
    [
        {"golden_max_abs_diff": "0.1", "latency_ms": None},
        {"golden_max_abs_diff": -1.0, "latency_ms": {**dict.fromkeys(TIMES), "p50": 0.0, "threads": 1}},
        {},
    ],
)
def test_a_strange_certificate_promises_nothing(make: Make, figures: object) -> None:
    strange = certificate(figures=figures)
    code, checks = run(make(certificate=strange))
    assert code == 0 and checks["outputs"]["threshold"] == 1e-4 and checks["latency"]["verdict"] == "not run"
    result = run_command("self-test", make(certificate=strange, precision="int8"))
    assert result.exit_code == 1 and "certificate" in error_lines(result)[0]


def test_the_certificate_of_this_class_of_processors_counts(make: Make, tiny_golden: Golden) -> None:
    both = document([certified(0.5, here=False), certified(0.004)])
    found, checks = run(make(shifted(tiny_golden, 0.002), both, precision="int8"))
    assert (found, checks["outputs"]["threshold"]) == (0, pytest.approx(0.009))


def test_what_cannot_be_tested_exits_1_with_one_line(make: Make, tmp_path: Path) -> None:
    for changes, reason in (
        ({"golden": None}, "no golden samples"),
        ({"certificate": None, "precision": "int8"}, "certificate does not say"),
        (None, "no bundle"),
    ):
        path = tmp_path / "missing.fer" if changes is None else make(**changes)
        result = run_command("self-test", path, "--json")
        assert (result.exit_code, result.stdout) == (1, "")
        assert len(error_lines(result)) == 1 and reason in result.stderr
    assert run_command("self-test", make(), "--engine", "tflite").exit_code == 1
