"""Certificates: read from files and bundles, merged, and held against this machine's class of CPUs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_fer.errors import BundleError, InputError
from edge_fer.parity.certificate import bundle_reports, merge, read_reports, report_for, summary, uncovered
from edge_fer.parity.documents import cpu_class_of, document, gates_of, joint_verdict, text_of
from tests.edge_fer.parity.conftest import World

Report = dict[str, Any]


def made_on(report: Report, cpu_class: str, **more: object) -> Report:
    other = copy.deepcopy(report)
    other["environment"]["cpu_class"] = cpu_class
    return {**other, **more}


def test_a_file_gives_its_reports(full_report: Report, tmp_path: Path) -> None:
    other = made_on(full_report, "aarch64 dotprod")
    for reports in ([full_report], [full_report, other]):
        path = tmp_path / "parity.json"
        path.write_text(json.dumps(document(reports)))
        assert read_reports(path) == reports
    assert [gate.to_json() for gate in gates_of(full_report)] == full_report["gates"]


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    content=st.binary(max_size=60) | st.sampled_from([b"{}", b'{"schema": "edge-fer-parity-1"}', b"[" * 9999])
)
def test_any_other_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "parity.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_reports(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_the_text_is_the_content_with_a_line_for_every_gate(full_report: Report) -> None:
    for content in (full_report, document([full_report, made_on(full_report, "x")])):
        text = text_of(content)
        assert json.loads(text) == content
        assert 20 < text.count("\n") < 300 and text.endswith("}\n")
    gate = json.dumps(full_report["gates"][3])
    assert any(line.strip().rstrip(",") == gate for line in text_of(full_report).splitlines())


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_reports(tmp_path / "parity.json")


def test_the_same_report_is_kept_once_and_another_reference_refused(full_report: Report) -> None:
    arm = made_on(full_report, "aarch64 dotprod")
    assert merge([full_report, arm, copy.deepcopy(full_report)]) == [full_report, arm]
    strange = made_on(full_report, "x", reference={"name": "other", "faces": 3, "sha256": "0" * 64})
    with pytest.raises(
        InputError, match=r"against one reference, got 2: drawn \(1500 faces\); other \(3 faces\)"
    ):
        merge([full_report, strange])


@pytest.mark.parametrize(
    ("verdicts", "joint"),
    [("pp", "passed"), ("pu", "undecided"), ("uf", "failed"), ("p", "passed"), ("pf", "failed")],
)
def test_the_worst_verdict_is_the_joint_one(full_report: Report, verdicts: str, joint: str) -> None:
    names = {"p": "passed", "u": "undecided", "f": "failed"}
    reports = [{**full_report, "verdict": names[letter]} for letter in verdicts]
    assert joint_verdict(reports) == joint
    assert document(reports)["verdict"] == joint


def test_a_bundle_covers_the_cpus_that_it_was_certified_on(
    full_report: Report, world: World, tmp_path: Path
) -> None:
    reports = [made_on(full_report, "x86-64 avx512-vnni"), made_on(full_report, "aarch64 dotprod")]
    bundle = world.bundle(tmp_path, parity=json.dumps(document(reports)).encode())
    assert bundle_reports(bundle) == reports and bundle.verdict == full_report["verdict"]
    assert uncovered(bundle, "aarch64 dotprod") is None
    warning = uncovered(bundle, "x86-64 avx2")
    assert warning == (
        f"{bundle.path} is certified on aarch64 dotprod, x86-64 avx512-vnni, this is x86-64 avx2: "
        f"run `edge-fer self-test {bundle.path}` before you rely on it"
    )
    unknown = world.bundle(tmp_path, parity=json.dumps(made_on(full_report, "x86-64 unknown")).encode())
    assert uncovered(unknown, "x86-64 unknown") is not None  # two of them may be anything
    assert report_for(reports, "aarch64 dotprod") is reports[1]
    assert report_for(reports, "riscv64") is reports[0] and report_for([], "x") is None
    assert summary(bundle, "aarch64 dotprod") == (
        f"linear onnx int8: parity {full_report['verdict']} on 1,500 faces, "
        f"{full_report['figures']['flips']} labels changed, certified on aarch64 dotprod"
    )
    assert cpu_class_of(reports[0]) == "x86-64 avx512-vnni"


def test_a_bundle_without_a_certificate_has_nothing_to_warn_of(world: World, tmp_path: Path) -> None:
    bundle = world.bundle(tmp_path)
    assert (bundle_reports(bundle), uncovered(bundle, "x")) == ([], None)
    assert summary(bundle, "x") == f"{bundle.path}: the bundle has no certificate"
    with pytest.raises(BundleError, match="has no certificate"):
        read_reports(bundle.path)


def test_a_certificate_of_another_version_covers_nothing(world: World, tmp_path: Path) -> None:
    old = {"schema": "edge-fer-parity-1", "verdict": "passed"}
    bundle = world.bundle(tmp_path, parity=json.dumps(old).encode())
    with pytest.raises(BundleError, match="export the bundle again"):
        bundle_reports(bundle)
    assert "export the bundle again" in str(uncovered(bundle, "x"))  # a warning: it still runs
    assert summary(bundle, "x") == f"{bundle.path}: parity passed, by a certificate of another version"
