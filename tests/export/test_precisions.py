"""Every precision on each target, as typed: what is written, what it says of itself, what is refused."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibrate.onnx import DEFAULT
from edge_fer.bundle import Bundle
from edge_fer.engines import load_engine
from edge_fer.engines.base import usable_cores
from edge_fer.parity.gates import Thresholds
from edge_fer.parity.metrics import jensen_shannon
from export.measure import TURNS, measure_speed

from .conftest import PACKAGES, TARGETS, Command, Result

Export = Callable[..., Result]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.fer"


@pytest.fixture
def export(path: Path, command: Command, checkpoint: Path, valid_faces: Path) -> Export:
    """Export the drawn-faces checkpoint to `path`, judged on other drawn faces."""

    def run(target: str, precision: str, *more: object) -> Result:
        for package in PACKAGES[target]:
            pytest.importorskip(package)
        arguments = ["--target", target, "--precision", precision, "--parity-data", valid_faces]
        return command("export", checkpoint, *arguments, "--output", path, *more)

    return run


def certificate(bundle: Bundle) -> dict[str, Any]:
    return json.loads(bundle.member("parity.json"))


def assert_refused(done: Result, path: Path, code: int, said: str) -> None:
    """Check that there is one line of error, and no file."""
    assert (done.code, done.output) == (code, []), done.errors
    assert len(done.errors) == 1 and done.errors[0].startswith("error: ") and said in done.errors[0]
    assert list(path.parent.iterdir()) == []


def assert_answers_nearly(bundle: Bundle, largest: float) -> None:
    """Check answers on the golden faces: nearly those of PyTorch, but not the float graph's."""
    golden = bundle.golden()
    assert golden is not None
    got = load_engine(bundle).run(golden.crops).probabilities
    divergence = jensen_shannon(golden.probabilities, got).mean()
    assert 1e-12 < divergence < largest


@pytest.mark.parametrize("target", TARGETS)
def test_fp16_is_written_with_its_certificate(target: str, export: Export, path: Path) -> None:
    done = export(target, "fp16")
    assert (done.code, done.output) == (0, [str(path)]), done.errors
    bundle = Bundle.load(path)
    spec = bundle.spec
    assert (spec.target, spec.precision, spec.quantisation, spec.quantised_ops) == (
        target,
        "fp16",
        "none",
        {},
    )
    assert spec.float_compute == ("bf16" if target == "openvino" else "fp32")
    assert spec.source["calibration_sha256"] is None
    found = certificate(bundle)
    verdicts = {gate["name"]: gate["verdict"] for gate in found["gates"]}
    assert verdicts["fp32 export"] == verdicts["preprocess"] == verdicts["batch"] == "passed"
    assert "failed" not in verdicts.values()
    assert [name for name, verdict in verdicts.items() if verdict == "not run"] == ["per class"]
    assert found["bundle"]["precision"] == "fp16" and "recipe" not in found
    assert_answers_nearly(bundle, 1e-3)
    speed = found["figures"]["latency_ms"]
    assert {"p50", "p90", "p99", "fp32_p50", "ratio", "verdict", "threads"} <= set(speed)
    assert speed["ratio"] == pytest.approx(speed["fp32_p50"] / speed["p50"])
    assert 0 < speed["p50"] <= speed["p90"] <= speed["p99"]
    assert speed["verdict"] == ("faster" if verdicts["speed"] == "passed" else "size only")
    assert speed["threads"] in (None, usable_cores())  # None: the choice of the engine
    [note] = [line for line in done.errors if "the speed of fp32" in line]
    assert f"{speed['ratio']:.2f}x" in note
    assert ("this graph saves size only" in note) == (speed["verdict"] == "size only")


def test_dynamic_int8_needs_no_calibration_faces(export: Export, path: Path, train_faces: Path) -> None:
    done = export("tflite", "int8", "--recipe", "dynamic", "--calibration-data", train_faces)
    assert (done.code, done.output) == (0, [str(path)]), done.errors
    assert "note: --calibration-data is not used with --recipe dynamic" in done.errors
    bundle = Bundle.load(path)
    spec = bundle.spec
    assert (spec.precision, spec.quantisation) == ("int8", "dynamic")
    assert spec.source["calibration_sha256"] is None
    assert spec.quantised_ops == {"CONV_2D": 14, "DEPTHWISE_CONV_2D": 1}
    assert spec.float_ops["FULLY_CONNECTED"] == 4  # the head
    assert "recipe" not in certificate(bundle) and bundle.verdict in ("passed", "undecided")
    assert_answers_nearly(bundle, 0.005)


def test_dynamic_int8_without_parity_data_says_that_nothing_was_compared(
    command: Command, checkpoint: Path, path: Path
) -> None:
    pytest.importorskip("ai_edge_quantizer")
    arguments = ["--target", "tflite", "--precision", "int8", "--recipe", "dynamic", "--output", path]
    done = command("export", checkpoint, *arguments)
    assert done.code == 0, done.errors
    assert "note: nothing compared the int8 graph with the float one: give --parity-data" in done.errors


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_dynamic_int8_without_matrix_products_is_refused(target: str, export: Export, path: Path) -> None:
    done = export(target, "int8", "--recipe", "dynamic")
    assert_refused(done, path, 1, "expected matrix products with constant weights in the encoder, got none")
    assert "take static int8" in done.errors[0]


def test_a_recipe_reaches_the_quantiser_and_the_certificate(
    export: Export, path: Path, train_faces: Path
) -> None:
    recipe = "weights=s8,ranges=minmax,float_first=no,float_modules=encoder.stages.1"
    done = export("onnx", "int8", "--calibration-data", train_faces, "--samples", 100, "--recipe", recipe)
    assert done.code == 0, done.errors
    bundle = Bundle.load(path)
    assert certificate(bundle)["recipe"] == {
        **DEFAULT.to_json(),
        "weights": "s8",
        "ranges": "minmax",
        "float_first": False,
        "float_modules": ["encoder.stages.1"],
    }
    model = onnx.load_from_string(bundle.member("model.onnx"))
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    kernels = [array for array in arrays if array.ndim == 4 and array.dtype == np.int8]
    assert len(kernels) == 10  # of fifteen, the block's five are float
    assert max(np.abs(kernel.astype(int)).max() for kernel in kernels) > 64  # all eight bits
    # What stays float is stored in float16, the large ones.
    assert sorted(array.shape[0] for array in arrays if array.dtype == np.float16) == [80] * 4


@pytest.mark.parametrize(
    ("target", "recipe", "code", "said"),
    [
        ("onnx", "ranges=mse", 1, "ONNX Runtime's quantiser: expected ranges minmax or percentile"),
        ("openvino", "activations=s8", 1, "NNCF: expected activations u8, got s8"),
        ("tflite", "weights=s8-7bit", 1, "AI Edge Quantizer: expected weights s8, got s8-7bit"),
        ("onnx", "float_modules=encoder.stages.9", 1, "got encoder.stages.9"),
        ("onnx", "speed=high", 2, "--recipe speed=high: expected dynamic, or KEY=VALUE"),
    ],
)
def test_a_recipe_that_a_target_cannot_follow_is_refused(
    target: str, recipe: str, code: int, said: str, export: Export, path: Path, train_faces: Path
) -> None:
    calibration = ["--calibration-data", train_faces, "--samples", 100]
    assert_refused(export(target, "int8", *calibration, "--recipe", recipe), path, code, said)


def test_stability_is_in_the_certificate(export: Export, path: Path, train_faces: Path) -> None:
    calibration = ["--calibration-data", train_faces, "--samples", 101]
    done = export("onnx", "int8", *calibration, "--stability")
    assert done.code == 0, done.errors
    bundle = Bundle.load(path)
    stability = certificate(bundle)["stability"]
    assert stability["calibration_faces"] == [51, 50] and stability["held_faces"] == 152
    assert stability["agreement"] > 0.98
    assert 0 < stability["divergence_mean"] <= stability["divergence_max"] < 0.05  # two graphs, and no more
    first, second = stability["accuracies"]
    assert min(first, second) > 0.95 and stability["accuracy_spread"] == pytest.approx(abs(first - second))


def test_a_precision_that_fails_its_gates_is_not_replaced_by_another(
    export: Export, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = functools.partial(Thresholds, divergence=1e-11)
    monkeypatch.setattr("edge_fer.parity.report.Thresholds", strict)
    done = export("onnx", "fp16")
    assert (done.code, done.output) == (3, [])
    assert [file.name for file in path.parent.iterdir()] == ["x.parity.json"]
    report = json.loads((path.parent / "x.parity.json").read_text())
    assert (report["verdict"], report["bundle"]["precision"]) == ("failed", "fp16")
    assert {gate["name"] for gate in report["gates"] if gate["verdict"] == "failed"} == {"distribution"}
    assert export("onnx", "fp32").code == 0  # that would have passed


def test_auto_wants_trained_weights_and_parity_data(
    command: Command, export: Export, path: Path, train_faces: Path, valid_faces: Path, checkpoint: Path
) -> None:
    auto = ["--target", "onnx", "--precision", "auto", "--output", path, "--calibration-data", train_faces]
    assert_refused(command("export", checkpoint, *auto), path, 2, "--precision auto needs --parity-data")
    untrained = command("export", "grefel-lite", *auto, "--parity-data", valid_faces)
    assert_refused(untrained, path, 2, "untrained weights have none")
    assert_refused(export("onnx", "auto"), path, 2, "--precision auto needs --calibration-data")


def test_two_graphs_are_timed_in_turns_without_the_first_run_of_each() -> None:
    ran: list[str] = []

    def engine(name: str, seconds: float) -> SimpleNamespace:
        def run(crop: object) -> None:
            first = not ran or ran[-1] != name
            ran.append(name)
            time.sleep(20 * seconds if first else seconds)

        return SimpleNamespace(run=run)

    crop = np.zeros((1, 4, 4, 3), np.uint8)
    speed = measure_speed(engine("int8", 5e-4), engine("fp32", 2e-3), crop)  # type: ignore[arg-type]
    assert ran == ["int8", "int8", "fp32", "fp32"] * TURNS
    assert len(speed.turns_ms) == len(speed.float_turns_ms) == TURNS
    assert 0.5 <= speed.latency_ms < 1.5 and 1.5 < speed.ratio < 8.0
