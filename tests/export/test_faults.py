"""Planted faults: each is caught, and by the gate that names it. A clean export passes everything."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import edge_fer.parity.exact
from edge_fer.parity.comparison import Report
from edge_fer.parity.gates import FP32, SAMPLED, SPEED
from edge_fer.preprocess import CropSpec

pytest.importorskip("torch")

from tests.export import faults
from tests.export.shipped import Shipped, make_shipped, report_of


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    return make_shipped(tmp_path_factory.mktemp("faults"))


def failed(report: Report) -> set[str]:
    return {gate.name for gate in report.gates if gate.verdict == "failed"}


def test_a_clean_export_passes_everything_with_its_margins(shipped: Shipped, tmp_path: Path) -> None:
    report = report_of(shipped.float_bundle, shipped.faces, tmp_path)
    assert {gate.name: gate.verdict for gate in report.gates if gate.name != SPEED} == dict.fromkeys(
        ("preprocess", "batch", FP32, *SAMPLED), "passed"
    )
    assert report.verdict == "passed" and report.figures["flips"] == 0
    for gate in report.gates:
        assert gate.verdict == "not run" or (gate.value is not None and gate.threshold is not None)
        assert gate.interval is not None or gate.name not in SAMPLED


@pytest.mark.parametrize(
    ("plant", "gates"),
    [
        (faults.swap_red_and_blue, {FP32}),
        (faults.shift_mean, {FP32}),
        (faults.shift_std, {FP32}),
        (faults.perturb_happiness, {FP32, "flips", "distribution"}),
        (faults.leak_the_batch, {"batch"}),
        (faults.permute_labels, {FP32, "accuracy", "flips"}),
        (faults.heat, {FP32, "distribution", "calibration", "reliability head"}),
    ],
)
def test_a_fault_in_the_float_graph_is_named_by_its_gates(
    shipped: Shipped, tmp_path: Path, plant: faults.Plant, gates: set[str]
) -> None:
    report = report_of(shipped.float_bundle, shipped.faces, tmp_path, plant)
    assert report.verdict == "failed" and gates <= failed(report), failed(report)


@pytest.mark.parametrize(
    ("plant", "gates"),
    [
        (faults.perturb_happiness, {"flips", "distribution"}),
        (faults.double_a_scale, {"flips", "distribution"}),
        (faults.permute_labels, {"accuracy", "flips"}),
        (faults.heat, {"distribution", "calibration", "reliability head"}),
    ],
)
def test_a_fault_in_the_int8_graph_is_named_by_its_gates(
    shipped: Shipped, tmp_path: Path, plant: faults.Plant, gates: set[str]
) -> None:
    report = report_of(shipped.int8_bundle, shipped.faces, tmp_path, plant)
    assert report.verdict == "failed" and gates <= failed(report), failed(report)


def test_a_temperature_is_told_with_what_repairs_it(shipped: Shipped, tmp_path: Path) -> None:
    report = report_of(shipped.float_bundle, shipped.faces, tmp_path, faults.heat)
    assert report.figures["flips"] == 0
    assert report.figures["repair_temperature"] == pytest.approx(1 / 1.5, rel=1e-3)


@pytest.mark.parametrize("fault", ["red and blue swapped", "nearest for bilinear"])
def test_a_fault_of_this_machines_pictures_is_the_preprocess_gates(
    shipped: Shipped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    if fault == "red and blue swapped":
        decode = edge_fer.parity.exact.decode_image
        monkeypatch.setattr(edge_fer.parity.exact, "decode_image", lambda *given: decode(*given)[..., ::-1])
    else:
        cut = edge_fer.parity.exact.crop_face

        def nearest(
            image: NDArray[np.uint8], box: object, landmarks: object, spec: CropSpec
        ) -> NDArray[np.uint8]:
            twice = cut(image, box, landmarks, dataclasses.replace(spec, size=2 * spec.size))  # type: ignore[arg-type]
            return np.ascontiguousarray(twice[::2, ::2])

        monkeypatch.setattr(edge_fer.parity.exact, "crop_face", nearest)
    report = report_of(shipped.float_bundle, shipped.faces, tmp_path)
    assert failed(report) == {"preprocess"}
