"""Engines: answers against an independent computation, the graph's contract, and providers never changed."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from edge_fer.bundle import Bundle, ModelSpec
from edge_fer.engines import EngineOptions, load_engine
from edge_fer.engines import onnxruntime as module
from edge_fer.engines.onnxruntime import OnnxRuntimeEngine
from edge_fer.errors import EngineError
from edge_fer.preprocess import CropSpec
from tests.conftest import MODELS, tiny_outputs

ENGINES = ["onnxruntime"]


def structured_crops() -> np.ndarray:
    """Return black, white, a gradient and seeded noise: uint8 (6, 16, 16, 3)."""
    ramp = np.linspace(0, 255, 16 * 16 * 3).reshape(16, 16, 3).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    return np.concatenate(
        [np.zeros((1, 16, 16, 3), np.uint8), np.full((1, 16, 16, 3), 255, np.uint8), ramp[None], noise]
    )


@pytest.mark.parametrize("name", ENGINES)
def test_answers_equal_an_independent_computation(tiny_bundle: Path, name: str) -> None:
    engine = load_engine(Bundle.load(tiny_bundle), EngineOptions(engine=name))
    crops = structured_crops()
    outputs = engine.run(crops)
    for got, expected in zip(
        (outputs.probabilities, outputs.primary, outputs.reliability), tiny_outputs(crops), strict=True
    ):
        assert got.dtype == np.float32 and got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert outputs.embedding is None


@pytest.mark.parametrize("name", ENGINES)
def test_a_row_does_not_depend_on_its_batch(tiny_bundle: Path, name: str) -> None:
    engine = load_engine(Bundle.load(tiny_bundle), EngineOptions(engine=name))
    crops = structured_crops()
    together = engine.run(crops[::-1])
    for row, crop in enumerate(crops[::-1]):
        np.testing.assert_allclose(
            engine.run(crop[None]).probabilities[0], together.probabilities[row], atol=1e-6
        )


@pytest.mark.parametrize("name", ENGINES)
def test_an_empty_batch_and_a_strided_one_run(tiny_bundle: Path, name: str) -> None:
    engine = load_engine(Bundle.load(tiny_bundle), EngineOptions(engine=name))
    assert engine.run(np.zeros((0, 16, 16, 3), np.uint8)).probabilities.shape == (0, 8)
    mirrored = structured_crops()[:, :, ::-1]
    np.testing.assert_array_equal(engine.run(mirrored).primary, engine.run(mirrored.copy()).primary)


@pytest.mark.parametrize("shape", [(16, 16, 3), (1, 3, 16, 16), (1, 17, 16, 3), (1, 16, 16, 4)])
def test_images_of_another_shape_are_refused(tiny_graph: bytes, shape: tuple[int, ...]) -> None:
    with pytest.raises(EngineError, match=r"expected images uint8 \(N, 16, 16, 3\)"):
        OnnxRuntimeEngine.from_bytes(tiny_graph).run(np.zeros(shape, np.uint8))


def test_float_images_are_refused(tiny_graph: bytes) -> None:
    with pytest.raises(EngineError, match="got float32"):
        OnnxRuntimeEngine.from_bytes(tiny_graph).run(np.zeros((1, 16, 16, 3), np.float32))  # type: ignore[arg-type]


def test_an_engine_tells_what_it_is(tiny_graph: bytes) -> None:
    engine = OnnxRuntimeEngine.from_bytes(tiny_graph, EngineOptions(threads=1))
    assert engine.describe() == {
        "engine": "onnxruntime",
        "version": onnxruntime.__version__,
        "provider": "CPUExecutionProvider",
        "threads": 1,
    }
    assert engine.session.get_session_options().intra_op_num_threads == 1


@pytest.mark.parametrize("name", ["tensorflow"])
def test_an_engine_of_another_version_says_so(tiny_bundle: Path, name: str) -> None:
    with pytest.raises(EngineError, match=f"the engine {name} is not available in this version"):
        load_engine(Bundle.load(tiny_bundle), EngineOptions(engine=name))


def test_a_bundle_for_another_target_is_refused(tiny_bundle: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    bundle.spec = dataclasses.replace(bundle.spec, target="tflite")
    with pytest.raises(EngineError, match="was exported for tflite, which the engine onnxruntime cannot run"):
        load_engine(bundle)
    with pytest.raises(EngineError, match="openvino cannot run: export it with --target openvino"):
        load_engine(bundle, EngineOptions(engine="openvino"))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or (os.cpu_count() or 1) < 2, reason="one core")
def test_a_process_kept_to_one_core_gets_one_thread(tiny_graph: bytes) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        engine = OnnxRuntimeEngine.from_bytes(tiny_graph)
    finally:
        os.sched_setaffinity(0, before)
    assert engine.session.get_session_options().intra_op_num_threads == 1
    assert engine.describe()["threads"] == 1


def test_no_threads_are_refused(tiny_bundle: Path) -> None:
    with pytest.raises(EngineError, match="expected 1 to 64 threads, got 0"):
        load_engine(Bundle.load(tiny_bundle), EngineOptions(threads=0))


def test_an_engine_that_is_not_installed_says_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match="pip install onnxruntime"):
        load_engine(Bundle.load(tiny_bundle))


@pytest.mark.parametrize("graph", [b"", b"no graph", b"\x08\x08" * 50])
def test_bytes_that_are_no_graph_are_refused(graph: bytes) -> None:
    with pytest.raises(EngineError, match="does not load this graph") as error:
        OnnxRuntimeEngine.from_bytes(graph)
    assert "\n" not in str(error.value)


def test_every_breach_of_the_contract_is_told_at_once() -> None:
    with pytest.raises(EngineError) as error:
        OnnxRuntimeEngine.from_bytes((MODELS / "foreign.onnx").read_bytes())
    text = str(error.value)
    for part in (
        "inputs input instead of image",
        "outputs primary instead of probabilities, primary, reliability",
    ):
        assert part in text
    assert "primary is tensor(float) [1, 3, 16, 16] instead of float32 of 2 axes" in text


def value(name: str, kind: str, shape: list[object]) -> SimpleNamespace:
    return SimpleNamespace(name=name, type=kind, shape=shape)


GOOD_INPUT = value("image", "tensor(uint8)", ["N", 16, 16, 3])
GOOD_OUTPUTS = [
    value("probabilities", "tensor(float)", ["N", 8]),
    value("primary", "tensor(float)", ["N", 8]),
    value("reliability", "tensor(float)", ["N"]),
]


@pytest.mark.parametrize(
    ("image", "outputs", "reason"),
    [
        (
            value("image", "tensor(float)", ["N", 16, 16, 3]),
            GOOD_OUTPUTS,
            "image is tensor\\(float\\) instead of uint8",
        ),
        (value("image", "tensor(uint8)", ["N", 3, 16, 16]), GOOD_OUTPUTS, "instead of \\(N, S, S, 3\\)"),
        (value("image", "tensor(uint8)", ["N", "H", "W", 3]), GOOD_OUTPUTS, "instead of \\(N, S, S, 3\\)"),
        (value("image", "tensor(uint8)", [1, 16, 16, 3]), GOOD_OUTPUTS, "a fixed batch of 1"),
        (value("image", "tensor(uint8)", ["N", 32, 32, 3]), GOOD_OUTPUTS, "32 pixels wide instead of 16"),
        (GOOD_INPUT, GOOD_OUTPUTS[:2], "outputs probabilities, primary instead of"),
        (
            GOOD_INPUT,
            [*GOOD_OUTPUTS, value("embedding", "tensor(float)", ["N", 4])],
            "outputs .*embedding instead",
        ),
        (
            GOOD_INPUT,
            [value("probabilities", "tensor(float)", ["N", 7]), *GOOD_OUTPUTS[1:]],
            "7 columns instead of 8",
        ),
        (
            GOOD_INPUT,
            [value("probabilities", "tensor(double)", ["N", 8]), *GOOD_OUTPUTS[1:]],
            "tensor\\(double\\)",
        ),
    ],
)
def test_a_breach_of_the_spec_is_refused(
    tiny_spec: ModelSpec, image: SimpleNamespace, outputs: list[SimpleNamespace], reason: str
) -> None:
    session = SimpleNamespace(get_inputs=lambda: [image], get_outputs=lambda: outputs)
    with pytest.raises(EngineError, match=reason):
        module._check_contract(session, tiny_spec)  # type: ignore[arg-type]


def test_the_contract_itself_and_an_embedding_that_was_asked_for_pass(tiny_spec: ModelSpec) -> None:
    outputs = [*GOOD_OUTPUTS, value("embedding", "tensor(float)", ["N", 4])]
    session = SimpleNamespace(get_inputs=lambda: [GOOD_INPUT], get_outputs=lambda: outputs)
    module._check_contract(session, dataclasses.replace(tiny_spec, outputs=(*tiny_spec.outputs, "embedding")))  # type: ignore[arg-type]
    module._check_contract(session, None)  # type: ignore[arg-type]


def test_a_graph_of_another_size_than_its_spec_is_refused(tiny_bundle: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    bundle.spec = dataclasses.replace(bundle.spec, input=CropSpec(size=64, margin=0))
    with pytest.raises(EngineError, match="16 pixels wide instead of 64"):
        load_engine(bundle)


MANY = [
    "TensorrtExecutionProvider",
    "CUDAExecutionProvider",
    "XnnpackExecutionProvider",
    "CPUExecutionProvider",
]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("CPUExecutionProvider", {})),
        ({"device": "cpu"}, ("CPUExecutionProvider", {})),
        ({"provider": "CPUExecutionProvider"}, ("CPUExecutionProvider", {})),
        ({"device": "cuda"}, ("CUDAExecutionProvider", {})),
        ({"device": "gpu"}, ("CUDAExecutionProvider", {})),
        ({"device": "cuda:1"}, ("CUDAExecutionProvider", {"device_id": "1"})),
        ({"provider": "tensorrt", "device": "cuda:1"}, ("TensorrtExecutionProvider", {"device_id": "1"})),
        ({"provider": "XNNPACK", "device": "cpu"}, ("XnnpackExecutionProvider", {})),
    ],
)
def test_friendly_names_lead_to_providers(
    options: dict[str, str], expected: tuple[str, dict[str, str]]
) -> None:
    assert module._choose_provider(EngineOptions(**options), MANY) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"provider": "openvino"},
            "openvino is not in this onnxruntime: available are cpu, cuda, tensorrt, xnnpack",
        ),
        ({"device": "npu"}, "npu is not in this onnxruntime"),
        ({"device": "cuda:x"}, "expected a device like"),
        ({"provider": "cpu", "device": "cuda"}, "exclude each other"),
        ({"provider": "cuda", "device": "cpu"}, "exclude each other"),
    ],
)
def test_a_provider_that_is_not_there_is_an_error(options: dict[str, str], reason: str) -> None:
    with pytest.raises(EngineError, match=reason):
        module._choose_provider(EngineOptions(**options), MANY)  # type: ignore[arg-type]


def test_a_provider_of_another_build_is_an_error(tiny_graph: bytes) -> None:
    with pytest.raises(EngineError, match=r"available are .*cpu"):
        OnnxRuntimeEngine.from_bytes(tiny_graph, EngineOptions(provider="rknpu"))


def test_a_provider_that_does_not_load_is_an_error_and_never_the_processor(
    monkeypatch: pytest.MonkeyPatch, tiny_graph: bytes
) -> None:
    """ONNX Runtime answers a CUDA that does not load with a session on the processor."""
    real = onnxruntime.InferenceSession

    def downgrade(graph: bytes, settings: object, providers: object, **others: object) -> object:
        assert providers == [("CUDAExecutionProvider", {})]
        return real(graph, settings, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: MANY)
    monkeypatch.setattr(onnxruntime, "InferenceSession", downgrade)
    with pytest.raises(EngineError, match="CUDAExecutionProvider did not load, onnxruntime offers CPU"):
        OnnxRuntimeEngine.from_bytes(tiny_graph, EngineOptions(provider="cuda"))


def test_the_library_s_own_fallback_is_switched_off(
    monkeypatch: pytest.MonkeyPatch, tiny_graph: bytes
) -> None:
    def fail(*arguments: object, **others: object) -> object:
        assert others["enable_fallback"] == 0
        raise RuntimeError("no CUDA driver")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: MANY)
    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(EngineError, match="with CUDAExecutionProvider: no CUDA driver"):
        OnnxRuntimeEngine.from_bytes(tiny_graph, EngineOptions(provider="cuda"))


def test_the_committed_graphs_are_what_their_script_makes() -> None:
    onnx = pytest.importorskip("onnx")
    spec = importlib.util.spec_from_file_location("make_tiny_onnx", MODELS / "make_tiny_onnx.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for name, made in (("tiny.onnx", script.tiny()), ("foreign.onnx", script.foreign())):
        committed = onnx.load_model_from_string((MODELS / name).read_bytes())
        assert onnx.load_model_from_string(made) == committed
        assert committed.ir_version <= 10 and committed.opset_import[0].version <= 21
