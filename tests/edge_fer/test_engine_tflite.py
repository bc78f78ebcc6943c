"""The TFLite engine: answers against an independent computation, contract, nothing but the processor."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_fer.bundle import Bundle, ModelSpec, write_bundle
from edge_fer.engines import EngineOptions, load_engine
from edge_fer.engines import tflite as module
from edge_fer.engines.tflite import TfliteEngine
from edge_fer.errors import EngineError
from edge_fer.native_log import without_information
from edge_fer.preprocess import CropSpec
from tests.conftest import MODELS, tiny_outputs

GRAPH = (MODELS / "tiny.tflite").read_bytes()
CROPS = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
needs_litert = pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_litert") is None, reason="ai-edge-litert is not installed"
)


@pytest.fixture
def spec(tiny_spec: ModelSpec) -> ModelSpec:
    return dataclasses.replace(tiny_spec, target="tflite", engine="tflite")


@pytest.fixture
def bundle(tmp_path: Path, spec: ModelSpec, tiny_members: dict[str, bytes]) -> Bundle:
    members = {name: content for name, content in tiny_members.items() if name != "model.onnx"}
    return write_bundle(tmp_path / "tiny.fer", spec, {**members, "model.tflite": GRAPH})


@needs_litert
def test_answers_equal_an_independent_computation(bundle: Bundle) -> None:
    outputs = load_engine(bundle).run(CROPS)
    for got, expected in zip(
        (outputs.probabilities, outputs.primary, outputs.reliability), tiny_outputs(CROPS), strict=True
    ):
        assert got.dtype == np.float32 and got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert outputs.embedding is None


@needs_litert
def test_every_row_is_computed_alone_and_an_earlier_answer_stays(bundle: Bundle) -> None:
    engine = load_engine(bundle)
    together = engine.run(CROPS)
    kept = together.probabilities.copy()
    for row, crop in enumerate(CROPS[::-1]):
        np.testing.assert_array_equal(engine.run(crop[None]).probabilities[0], kept[::-1][row])
    np.testing.assert_array_equal(together.probabilities, kept)


@needs_litert
def test_callers_in_several_threads_get_their_own_answers() -> None:
    engine = TfliteEngine.from_bytes(GRAPH)
    crops = np.random.default_rng(1).integers(0, 256, (400, 16, 16, 3), dtype=np.uint8)
    expected = engine.run(crops).probabilities
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda start: engine.run(crops[start::4]).probabilities, range(4)))
    for start, part in enumerate(parts):
        np.testing.assert_array_equal(part, expected[start::4])


@needs_litert
def test_an_empty_batch_and_a_strided_one_run() -> None:
    engine = TfliteEngine.from_bytes(GRAPH)
    assert engine.run(CROPS[:0]).probabilities.shape == (0, 8)
    assert engine.run(CROPS[:0]).reliability.shape == (0,)
    mirrored = CROPS[:, :, ::-1]
    np.testing.assert_array_equal(engine.run(mirrored).primary, engine.run(mirrored.copy()).primary)


@needs_litert
@pytest.mark.parametrize(
    "images",
    [
        np.zeros((16, 16, 3), np.uint8),
        np.zeros((1, 3, 16, 16), np.uint8),
        np.zeros((1, 17, 16, 3), np.uint8),
        np.zeros((1, 16, 16, 3), np.float32),
    ],
)
def test_other_images_are_refused(images: np.ndarray) -> None:
    with pytest.raises(EngineError, match=r"expected images uint8 \(N, 16, 16, 3\)"):
        TfliteEngine.from_bytes(GRAPH).run(images)


@needs_litert
def test_an_engine_tells_what_it_is() -> None:
    description = TfliteEngine.from_bytes(GRAPH, EngineOptions(threads=2)).describe()
    assert description.pop("version") == f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}"
    assert description == {"engine": "tflite", "provider": "xnnpack", "threads": 2}


@needs_litert
@pytest.mark.parametrize("graph", [b"", b"not a graph", GRAPH[:200]])
def test_what_is_no_graph_is_refused_in_one_line(graph: bytes) -> None:
    with pytest.raises(EngineError, match="tflite does not load this graph") as error:
        TfliteEngine.from_bytes(graph)
    assert "\n" not in str(error.value)


@needs_litert
def test_a_graph_of_another_size_than_its_spec_is_refused(bundle: Bundle) -> None:
    bundle.spec = dataclasses.replace(bundle.spec, input=CropSpec(size=64, margin=0))
    with pytest.raises(EngineError, match="16 pixels wide instead of 64"):
        load_engine(bundle)


@needs_litert
def test_loading_says_nothing() -> None:
    """In a process of its own: the library tells of its delegate once only."""
    code = f"""
from pathlib import Path
from edge_fer.engines.tflite import TfliteEngine
TfliteEngine.from_bytes(Path({str(MODELS / "tiny.tflite")!r}).read_bytes())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=MODELS.parents[1], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"device": "cuda"}, "runs on the device cpu, got cuda"),
        ({"device": "cpu:1"}, "runs on the device cpu, got cpu:1"),
        ({"provider": "gpu"}, "providers cpu and xnnpack, got gpu"),
    ],
)
def test_another_place_than_the_processor_is_refused(options: dict[str, str], reason: str) -> None:
    with pytest.raises(EngineError, match=reason):
        TfliteEngine.from_bytes(GRAPH, EngineOptions(**options))  # type: ignore[arg-type]


@needs_litert
@pytest.mark.parametrize("options", [{"device": "CPU"}, {"provider": "xnnpack"}, {"provider": "cpu"}])
def test_the_processor_may_be_named(options: dict[str, str]) -> None:
    TfliteEngine.from_bytes(GRAPH, EngineOptions(**options))  # type: ignore[arg-type]


def test_an_engine_that_is_not_installed_says_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle
) -> None:
    for name in ("ai_edge_litert", "ai_edge_litert.interpreter", "tflite_runtime.interpreter"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineError, match=r"the engine tflite does not import .*edge-fer\[tflite\]"):
        load_engine(bundle)


def details(name: str, dtype: type, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": np.array(shape, np.int32), "index": len(name)}


GOOD_INPUTS = {"image": details("image", np.uint8, [1, 16, 16, 3])}
GOOD_OUTPUTS = {
    "probabilities": details("probabilities", np.float32, [1, 8]),
    "primary": details("primary", np.float32, [1, 8]),
    "reliability": details("reliability", np.float32, [1]),
}


class FakeInterpreter:
    """An interpreter as the old package has it, answering 0.125 everywhere."""

    arguments: dict[str, Any]

    def __init__(self, **arguments: Any) -> None:
        type(self).arguments = arguments
        self.inputs: dict[str, Any] = arguments.pop("inputs", GOOD_INPUTS)
        self.outputs: dict[str, Any] = arguments.pop("outputs", GOOD_OUTPUTS)
        self.signatures: dict[str, Any] = arguments.pop("signatures", {"serving_default": {}})

    def allocate_tensors(self) -> None:
        pass

    def get_signature_list(self) -> dict[str, Any]:
        return self.signatures

    def get_signature_runner(self, key: str) -> SimpleNamespace:
        assert key == "serving_default"
        return SimpleNamespace(get_input_details=lambda: self.inputs, get_output_details=lambda: self.outputs)

    def set_tensor(self, index: int, value: np.ndarray) -> None:
        assert index == GOOD_INPUTS["image"]["index"] and value.shape == (1, 16, 16, 3)

    def invoke(self) -> None:
        pass

    def get_tensor(self, index: int) -> np.ndarray:
        (shape,) = [item["shape"] for item in self.outputs.values() if item["index"] == index]
        return np.full(shape, 0.125, np.float32)


def test_the_old_package_serves_where_only_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle
) -> None:
    for name in ("ai_edge_litert", "ai_edge_litert.interpreter"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "tflite_runtime", ModuleType("tflite_runtime"))
    fake = ModuleType("tflite_runtime.interpreter")
    fake.Interpreter = FakeInterpreter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", fake)
    engine = load_engine(bundle, EngineOptions(threads=3))
    assert FakeInterpreter.arguments == {"model_content": GRAPH, "num_threads": 3}
    assert engine.run(CROPS).reliability.tolist() == [0.125] * 5
    assert engine.describe()["version"] == "tflite-runtime unknown"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"signatures": {}}, "0 signatures instead of 1"),
        ({"inputs": {"args_0": GOOD_INPUTS["image"]}}, "inputs args_0 instead of image"),
        ({"inputs": {"image": details("image", np.float32, [1, 16, 16, 3])}}, "float32 instead of uint8"),
        ({"inputs": {"image": details("image", np.uint8, [1, 3, 16, 16])}}, r"instead of \(1, S, S, 3\)"),
        ({"inputs": {"image": details("image", np.uint8, [2, 16, 16, 3])}}, r"instead of \(1, S, S, 3\)"),
        ({"inputs": {"image": details("image", np.uint8, [1, 32, 32, 3])}}, "32 pixels wide instead of 16"),
        ({"outputs": {"primary": GOOD_OUTPUTS["primary"]}}, "outputs primary instead of"),
        (
            {"outputs": {**GOOD_OUTPUTS, "probabilities": details("p", np.float32, [1, 7])}},
            "probabilities has 7 columns instead of 8",
        ),
        (
            {"outputs": {**GOOD_OUTPUTS, "reliability": details("r", np.float32, [1, 1])}},
            "reliability is float32 .* instead of float32 of 1 axes",
        ),
        ({"outputs": {**GOOD_OUTPUTS, "primary": details("q", np.int8, [1, 8])}}, "primary is int8"),
    ],
)
def test_a_breach_of_the_contract_is_refused(spec: ModelSpec, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(EngineError, match=reason):
        module._check_contract(FakeInterpreter(**changes), spec)


def test_all_faults_are_told_at_once(spec: ModelSpec) -> None:
    fake = FakeInterpreter(inputs={}, outputs={})
    with pytest.raises(EngineError, match="inputs none instead of image; outputs none instead of"):
        module._check_contract(fake, spec)


def test_information_is_held_back_and_warnings_are_not(capfd: pytest.CaptureFixture[str]) -> None:
    with without_information():
        os.write(
            2, b"INFO: Created a delegate\nI0000 00:00:1795305617.168774   14434 x.cc:1] fine\nERROR: no\n"
        )
        assert capfd.readouterr().err == ""
    assert capfd.readouterr().err == "ERROR: no\n"


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no files in memory")
def test_information_is_held_back_where_no_folder_can_be_written_to(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("tempfile.tempdir", str(tmp_path / "missing"))
        with without_information():
            os.write(2, b"INFO: Created a delegate\nERROR: no\n")
    assert capfd.readouterr().err == "ERROR: no\n"


def test_what_fails_inside_is_raised_and_standard_error_is_back(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="inside"), without_information():
        raise ValueError("inside")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


@needs_litert
def test_the_committed_graph_answers_as_what_its_script_makes() -> None:
    pytest.importorskip("litert_torch")
    found = importlib.util.spec_from_file_location("make_tiny_tflite", MODELS / "make_tiny_tflite.py")
    assert found is not None and found.loader is not None
    script = importlib.util.module_from_spec(found)
    found.loader.exec_module(script)
    made, committed = TfliteEngine.from_bytes(script.tiny()), TfliteEngine.from_bytes(GRAPH)
    np.testing.assert_allclose(made.run(CROPS).probabilities, committed.run(CROPS).probabilities, atol=1e-6)
