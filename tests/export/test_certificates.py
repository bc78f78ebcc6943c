"""The command certify: reports of other processors go into a bundle, those of other bundles do not."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from edge_fer.bundle import Bundle, write_bundle
from edge_fer.parity.certificate import bundle_reports, uncovered
from edge_fer.parity.documents import cpu_class_of

from .conftest import Command

Json = dict[str, Any]


@pytest.fixture
def bundle(tiny_bundle: Path) -> Path:
    return tiny_bundle


def board(bundle: Path, cpu_class: str = "aarch64 dotprod", **changes: object) -> Json:
    """Return the bundle's own report as another machine would have made it."""
    report = copy.deepcopy(dict(bundle_reports(Bundle.load(bundle))[0]))
    return {**report, "environment": {**report["environment"], "cpu_class": cpu_class}, **changes}


def judged(report: Json, verdict: str) -> Json:
    """Return the report with another verdict of its sampled gate, and so of its own."""
    gates = [{**gate, "verdict": verdict} if gate["name"] == "flips" else gate for gate in report["gates"]]
    return {**report, "gates": gates, "verdict": verdict}


def written(path: Path, report: Json) -> Path:
    path.write_text(json.dumps(report))
    return path


def test_a_bundle_gets_a_certificate_per_class_its_own_first(
    command: Command, bundle: Path, tmp_path: Path
) -> None:
    own = bundle_reports(Bundle.load(bundle))[0]
    old, new = board(bundle, faces=5), board(bundle, faces=7)
    arm = [written(tmp_path / f"{name}.json", one) for name, one in (("old", old), ("new", new))]
    haswell = written(tmp_path / "haswell.json", board(bundle, "x86-64 avx2"))
    done = command("certify", bundle, *arm, haswell)
    assert (done.code, done.output) == (0, [str(bundle)]), done.errors
    reports = bundle_reports(Bundle.load(bundle))
    assert [cpu_class_of(one) for one in reports] == [cpu_class_of(own), "aarch64 dotprod", "x86-64 avx2"]
    assert reports[0] == own and reports[1] == new  # the last one of a class
    assert uncovered(Bundle.load(bundle), "aarch64 dotprod") is None
    again = command(
        "certify", bundle, written(tmp_path / "later.json", board(bundle, "x86-64 avx2", faces=9))
    )
    assert again.code == 0
    assert [one["faces"] for one in bundle_reports(Bundle.load(bundle))] == [12, 7, 9]


def test_an_emulated_report_never_replaces_that_of_a_board(
    command: Command, bundle: Path, tmp_path: Path
) -> None:
    real, emulated = board(bundle, faces=5), board(bundle, faces=7)
    emulated["environment"]["emulated"] = "qemu-user 10.0, cortex-a76"
    first, second = (written(tmp_path / f"{one['faces']}.json", one) for one in (real, emulated))
    done = command("certify", bundle, second)
    assert done.code == 0 and done.errors[-1].endswith("aarch64 dotprod (emulated)")
    assert command("certify", bundle, first).code == 0
    assert bundle_reports(Bundle.load(bundle))[1] == real
    refused = command("certify", bundle, second)
    assert refused.code == 1 and "an emulated one (qemu-user 10.0, cortex-a76)" in refused.errors[0]
    assert bundle_reports(Bundle.load(bundle))[1] == real


def test_another_place_leaves_the_bundle_alone(command: Command, bundle: Path, tmp_path: Path) -> None:
    before = Bundle.load(bundle).digest
    done = command(
        "certify", bundle, written(tmp_path / "a.json", board(bundle)), "--output", tmp_path / "b.fer"
    )
    assert done.output == [str(tmp_path / "b.fer")]
    assert Bundle.load(bundle).digest == before
    assert len(bundle_reports(Bundle.load(tmp_path / "b.fer"))) == 2


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"judged": "failed"}, 3, "got aarch64 dotprod: failed: it stays out of the bundle"),
        ({"judged": "undecided"}, 3, "got aarch64 dotprod: undecided: it stays out of the bundle"),
        ({"verdict": "failed"}, 1, "it says failed, its gates say passed"),
        ({"reference": None}, 1, "expected a report against the bundle's own reference"),
        ({"cpu_class": "x86-64 avx512"}, 1, "expected a report of another class of processors"),
        ({"bundle": "other"}, 1, "expected a report of this bundle's graph"),
        ({"reference": {"name": "other", "faces": 3, "sha256": "1" * 64}}, 1, "the bundle's own reference"),
        ({"schema": "edge-fer-parity-1"}, 1, "expected the schema edge-fer-parity-2"),
    ],
)
def test_what_does_not_belong_into_it_is_refused_in_one_line(
    command: Command,
    bundle: Path,
    tmp_path: Path,
    tiny_members: dict[str, bytes],
    change: Json,
    code: int,
    text: str,
) -> None:
    own = board(bundle, reference={"name": "own", "faces": 12, "sha256": "0" * 64})
    own["environment"]["cpu_class"] = "x86-64 avx512"
    loaded = Bundle.load(bundle)
    write_bundle(bundle, loaded.spec, {**tiny_members, "parity.json": json.dumps(own).encode()})
    report = board(bundle)
    change = {"bundle": {**report["bundle"], "digest": "f" * 64}} if "bundle" in change else change
    if "judged" in change:
        change = judged(report, change["judged"])
    if "cpu_class" in change:
        change = {"environment": {**report["environment"], **change}}
    before = Bundle.load(bundle).digest
    done = command("certify", bundle, written(tmp_path / "a.json", {**report, **change}))
    assert (done.code, done.output, len(done.errors)) == (code, [], 1)
    assert text in done.errors[0]
    assert Bundle.load(bundle).digest == before


def test_a_bundle_without_a_certificate_is_refused(
    command: Command, bundle: Path, tmp_path: Path, tiny_members: dict[str, bytes]
) -> None:
    report = written(tmp_path / "a.json", board(bundle))
    spec = Bundle.load(bundle).spec
    write_bundle(bundle, spec, {name: data for name, data in tiny_members.items() if name != "parity.json"})
    done = command("certify", bundle, report)
    assert done.code == 1 and "has no certificate of its own" in done.errors[0]
