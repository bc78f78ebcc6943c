"""OpenVINO as an engine: an independent computation, the contract, devices never changed, no telemetry."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edge_fer.bundle import Bundle, ModelSpec, write_bundle
from edge_fer.engines import EngineOptions, load_engine
from edge_fer.engines import openvino as module
from edge_fer.engines.openvino import OpenVinoEngine
from edge_fer.errors import EngineError
from tests.conftest import MODELS, error_lines, json_lines, run_command, tiny_outputs
from tests.edge_fer.test_engines import structured_crops

pytest.importorskip("openvino")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def graph() -> tuple[bytes, bytes]:
    return (MODELS / "tiny.xml").read_bytes(), (MODELS / "tiny.bin").read_bytes()


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_tiny_openvino", MODELS / "make_tiny_openvino.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def bundle(
    tmp_path: Path, tiny_spec: ModelSpec, tiny_members: dict[str, bytes], graph: tuple[bytes, bytes]
) -> Path:
    spec = dataclasses.replace(tiny_spec, target="openvino", engine="openvino")
    members = {name: data for name, data in tiny_members.items() if name != "model.onnx"}
    members |= {"model.xml": graph[0], "model.bin": graph[1]}
    return write_bundle(tmp_path / "tiny-openvino.fer", spec, members).path


def test_answers_equal_an_independent_computation(bundle: Path) -> None:
    crops = structured_crops()
    outputs = load_engine(Bundle.load(bundle)).run(crops)
    for got, expected in zip(
        (outputs.probabilities, outputs.primary, outputs.reliability), tiny_outputs(crops), strict=True
    ):
        assert got.dtype == np.float32 and got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert outputs.embedding is None


def test_a_row_does_not_depend_on_its_batch_and_answers_are_kept(bundle: Path) -> None:
    engine = load_engine(Bundle.load(bundle))
    crops = structured_crops()
    together = engine.run(crops[::-1])
    kept = together.probabilities.copy()
    for row, crop in enumerate(crops[::-1]):
        alone = engine.run(crop[None])
        np.testing.assert_array_equal(alone.probabilities[0], kept[row])
        np.testing.assert_array_equal(alone.primary[0], together.primary[row])
        np.testing.assert_array_equal(alone.reliability[0], together.reliability[row])
    # The engine's own memory is reused from run to run; what was handed out must not be.
    np.testing.assert_array_equal(together.probabilities, kept)


def test_the_processor_runs_a_graph_of_one_face(bundle: Path) -> None:
    engine = load_engine(Bundle.load(bundle))
    assert isinstance(engine, OpenVinoEngine)
    compiled = engine.request.get_compiled_model()
    assert [list(port.get_shape()) for port in compiled.inputs] == [[1, 16, 16, 3]]
    seen: list[int] = []
    infer = engine._infer
    engine._infer = lambda images: (seen.append(len(images)), infer(images))[1]  # type: ignore[method-assign]
    assert engine.run(structured_crops()).probabilities.shape == (6, 8)
    assert seen == [1] * 6


def test_an_empty_batch_and_a_strided_one_run(bundle: Path) -> None:
    engine = load_engine(Bundle.load(bundle))
    empty = engine.run(np.zeros((0, 16, 16, 3), np.uint8))
    assert (empty.probabilities.shape, empty.primary.shape) == ((0, 8), (0, 8))
    assert empty.reliability.shape == (0,)
    mirrored = structured_crops()[:, :, ::-1]
    np.testing.assert_array_equal(engine.run(mirrored).primary, engine.run(mirrored.copy()).primary)


@pytest.mark.parametrize("shape", [(16, 16, 3), (1, 3, 16, 16), (1, 17, 16, 3), (1, 16, 16, 4)])
def test_images_of_another_shape_are_refused(graph: tuple[bytes, bytes], shape: tuple[int, ...]) -> None:
    with pytest.raises(EngineError, match=r"expected images uint8 \(N, 16, 16, 3\)"):
        OpenVinoEngine.from_bytes(*graph).run(np.zeros(shape, np.uint8))


def test_an_engine_tells_what_it_is_and_computes_in_float32(graph: tuple[bytes, bytes]) -> None:
    import openvino

    engine = OpenVinoEngine.from_bytes(*graph, EngineOptions(threads=1, device="cpu"))
    assert engine.describe() == {
        "engine": "openvino",
        "version": openvino.__version__,
        "device": "CPU",
        "precision": "f32",
        "threads": 1,
    }
    compiled = engine.request.get_compiled_model()
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    assert str(compiled.get_property("PERFORMANCE_HINT")).rpartition(".")[2] == "LATENCY"
    assert OpenVinoEngine.from_bytes(*graph).describe()["threads"] is None


def has_bfloat16() -> bool:
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.parametrize(("float_compute", "expected"), [("fp32", "f32"), ("bf16", "bf16")])
def test_bfloat16_is_computed_in_only_where_the_spec_says_so(
    bundle: Path, float_compute: str, expected: str
) -> None:
    if expected == "bf16" and not has_bfloat16():
        pytest.skip("this processor has no bfloat16")
    loaded = Bundle.load(bundle)
    spec = dataclasses.replace(loaded.spec, float_compute=float_compute)
    members = {name: loaded.member(name) for name in loaded.members}
    engine = load_engine(write_bundle(bundle.parent / "other.fer", spec, members))
    assert isinstance(engine, OpenVinoEngine)
    assert engine.describe()["precision"] == expected
    compiled = engine.request.get_compiled_model()
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == expected
    crops = structured_crops()
    together = engine.run(crops).probabilities
    difference = np.abs(together - tiny_outputs(crops)[0]).max()
    assert difference < 1e-5 if expected == "f32" else 1e-4 < difference < 0.03  # eight bits of mantissa
    alone = [engine.run(crop[None]).probabilities[0] for crop in crops]
    np.testing.assert_array_equal(alone, together)


def test_a_processor_without_bfloat16_computes_in_float32(
    graph: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    import openvino

    class OldCore(openvino.Core):
        def get_property(self, *arguments: object) -> object:
            assert arguments == ("CPU", "OPTIMIZATION_CAPABILITIES")
            return ["FP32", "INT8", "BIN"]

    monkeypatch.setattr(openvino, "Core", OldCore)
    engine = OpenVinoEngine.from_bytes(*graph, float_compute="bf16")
    assert engine.describe()["precision"] == "f32"
    crops = structured_crops()
    np.testing.assert_allclose(engine.run(crops).probabilities, tiny_outputs(crops)[0], rtol=1e-4, atol=1e-5)


def test_a_profile_adds_up_to_the_time_of_a_run(script: ModuleType) -> None:
    large = script.serialise(script.build(size=256))
    engine = OpenVinoEngine.from_bytes(*large, EngineOptions(threads=1, profile=True))
    faces = np.zeros((3, 256, 256, 3), np.uint8)
    started = time.perf_counter()
    [nodes] = engine.profile(faces, 20)
    wall_ms = 1e3 * (time.perf_counter() - started)
    # Of all the faces of a run: one inference each.
    assert 0.01 < sum(node.ms for node in nodes) <= wall_ms / 20


@pytest.mark.parametrize("device", ["tpu", "gpu:7", "npu.3"])
def test_a_device_that_is_not_there_is_an_error(graph: tuple[bytes, bytes], device: str) -> None:
    with pytest.raises(EngineError, match=rf"the device {device} is not there .*available are cpu"):
        OpenVinoEngine.from_bytes(*graph, EngineOptions(device=device))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [(None, "CPU"), ("cpu", "CPU"), ("gpu", "GPU"), ("gpu:1", "GPU.1"), ("NPU", "NPU")],
)
def test_friendly_names_lead_to_devices(asked: str | None, expected: str) -> None:
    assert module._choose_device(asked, ["CPU", "GPU.0", "GPU.1", "NPU"]) == expected


def test_a_provider_is_refused(graph: tuple[bytes, bytes]) -> None:
    with pytest.raises(EngineError, match="no providers, got cpu: name its device with --device"):
        OpenVinoEngine.from_bytes(*graph, EngineOptions(provider="cpu"))


def test_an_engine_that_is_not_installed_says_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, bundle: Path
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineError, match=r"pip install 'edge-fer\[openvino\]'"):
        load_engine(Bundle.load(bundle))


@pytest.mark.parametrize("broken", [b"", b"no graph", b"<net/>", b'<net name="x" version="11"></net>'])
def test_bytes_that_are_no_graph_are_refused(graph: tuple[bytes, bytes], broken: bytes) -> None:
    with pytest.raises(EngineError) as error:
        OpenVinoEngine.from_bytes(broken, graph[1])
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_weights_that_are_cut_short_are_refused(graph: tuple[bytes, bytes]) -> None:
    with pytest.raises(EngineError, match="does not load this graph on CPU"):
        OpenVinoEngine.from_bytes(graph[0], graph[1][:100])


def test_every_breach_of_the_contract_is_told_at_once(script: ModuleType) -> None:
    model = script.build(kind=np.float32)
    model.inputs[0].set_names({"pixels"})
    model.outputs[1].set_names({"first"})
    with pytest.raises(EngineError) as error:
        OpenVinoEngine.from_bytes(*script.serialise(model))
    assert "inputs pixels instead of image" in str(error.value)
    assert "outputs probabilities, first, reliability instead of" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": np.float32}, "image is f32 instead of uint8"),
        ({"size": 32}, "32 pixels wide instead of 16"),
        ({"classes": 7}, "7 columns instead of 8"),
    ],
)
def test_a_breach_of_the_spec_is_refused(
    bundle: Path, script: ModuleType, changes: dict[str, object], reason: str
) -> None:
    loaded = Bundle.load(bundle)
    xml, weights = script.serialise(script.build(**changes))
    members = {"model.xml": xml, "model.bin": weights}
    other = write_bundle(bundle.parent / "other.fer", loaded.spec, members)
    with pytest.raises(EngineError, match=reason):
        load_engine(other)


def test_the_commands_take_the_bundle(bundle: Path) -> None:
    done = run_command("parity", bundle, "--threads", "1", "--json")
    assert done.exit_code == 0, done.stderr
    (report,) = json_lines(done)
    verdicts = {gate["name"]: gate["verdict"] for gate in report["gates"]}
    assert verdicts["preprocess"] == verdicts["batch"] == "passed"
    refused = run_command("parity", bundle, "--engine", "onnxruntime")
    assert refused.exit_code == 1
    assert "which the engine onnxruntime cannot run" in error_lines(refused)[0]


def test_the_engine_reports_to_nobody(bundle: Path, tmp_path: Path) -> None:
    """OpenVINO's telemetry gives the user a number, kept in the home folder; none means it never started."""
    home = tmp_path / "home"
    home.mkdir()
    code = (
        f"import sys, edge_fer; edge_fer.Recognizer.load({str(bundle)!r}); "
        "assert sys.modules['openvino'] and sys.modules['openvino_telemetry'] is None"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "TF_BUILD")}
    environment["HOME"] = str(home)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, cwd=ROOT)
    assert list(home.rglob("*")) == []


def test_the_committed_graph_is_what_its_script_makes(script: ModuleType, graph: tuple[bytes, bytes]) -> None:
    xml, weights = script.serialise(script.build())
    assert weights == graph[1]
    # Not the bytes: another version of OpenVINO may note more on a layer.
    made, committed = (script.ElementTree.fromstring(text) for text in (xml, graph[0]))
    layers = [[(x.get("name"), x.get("type")) for x in root.iter("layer")] for root in (made, committed)]
    assert layers[0] == layers[1] and len(layers[0]) > 15
