"""Profiles: every engine's nodes on the tiny graph, classes of real operator names, sums by hand."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_fer.bench.profile import KERNELS, node_class, summarise
from edge_fer.bench.report import profile_rows
from edge_fer.bundle import Bundle, ModelSpec, write_bundle
from edge_fer.engines import EngineOptions, litert, load_engine
from edge_fer.engines.base import NodeTime
from edge_fer.engines.openvino import OpenVinoEngine
from edge_fer.errors import EngineError
from tests.conftest import MODELS

CROPS = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
FILES = {"onnx": ("tiny.onnx",), "openvino": ("tiny.xml", "tiny.bin"), "tflite": ("tiny.tflite",)}
TARGETS = [
    pytest.param(target, engine, marks=pytest.mark.skipif(find_spec(package) is None, reason=f"no {package}"))
    for target, engine, package in (
        ("onnx", "onnxruntime", "onnxruntime"),
        ("openvino", "openvino", "openvino"),
        ("tflite", "tflite", "ai_edge_litert"),
    )
]


@pytest.fixture
def make_bundle(
    tmp_path: Path, tiny_spec: ModelSpec, tiny_members: dict[str, bytes]
) -> Callable[[str, str], Bundle]:
    def make(target: str, engine: str) -> Bundle:
        members = {name: data for name, data in tiny_members.items() if name != "model.onnx"}
        members |= {name.replace("tiny", "model"): (MODELS / name).read_bytes() for name in FILES[target]}
        spec = dataclasses.replace(tiny_spec, target=target, engine=engine)
        return write_bundle(tmp_path / f"{target}.fer", spec, members)

    return make


@pytest.mark.parametrize(("target", "engine"), TARGETS)
def test_every_engine_tells_the_time_of_its_nodes(
    make_bundle: Callable[[str, str], Bundle], target: str, engine: str
) -> None:
    loaded = load_engine(make_bundle(target, engine), EngineOptions(threads=1, profile=True))
    before = loaded.run(CROPS[:1])
    started = time.perf_counter()
    runs = loaded.profile(CROPS[:1], 20)
    wall_ms = 1e3 * (time.perf_counter() - started)
    assert len(runs) == (1 if engine == "openvino" else 20)  # OpenVINO knows means alone
    rounding_ms = 1e-3 * len(runs[0])  # engines count in whole microseconds
    total_ms = sum(node.ms for nodes in runs for node in nodes) / len(runs)
    # Of one face no node of this graph takes OpenVINO a microsecond; its own test has a larger graph.
    assert total_ms > 0 or engine == "openvino"
    assert total_ms <= wall_ms / 20 + rounding_ms
    # OpenVINO fuses the arithmetic around the softmaxes.
    fused = {"subgraph"} if engine == "openvino" else set()
    for nodes in runs:  # one linear layer, two softmaxes
        found = [node_class(node.type) for node in nodes]
        assert found.count("matrix") == 1
        assert set(found) <= {"matrix", "softmax", "eltwise", "reduce", "layout", "quantise"} | fused
        # OpenVINO leaves out what took less than a microsecond.
        assert found.count("softmax") == 2 or engine == "openvino"
    assert len({len(nodes) for nodes in runs}) == 1
    np.testing.assert_array_equal(loaded.run(CROPS[:1]).probabilities, before.probabilities)


@pytest.mark.parametrize(("target", "engine"), TARGETS)
def test_an_engine_that_was_not_loaded_for_a_profile_says_so(
    make_bundle: Callable[[str, str], Bundle], target: str, engine: str
) -> None:
    with pytest.raises(EngineError, match="profile=True"):
        load_engine(make_bundle(target, engine)).profile(CROPS[:1], 2)


class SlowAtFirst:
    """An OpenVINO request whose one node took 5 ms in the first run and 0.1 ms in every later one."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._runs = 0

    def infer(self, inputs: object) -> object:
        self._runs += 1
        return self._request.infer(inputs)

    def get_compiled_model(self) -> object:
        return self._request.get_compiled_model()

    def get_profiling_info(self) -> list[SimpleNamespace]:
        mean = timedelta(microseconds=(5000 + 100 * (self._runs - 1)) / self._runs)  # what OpenVINO tells
        return [
            SimpleNamespace(node_name="a", node_type="MatMul", real_time=mean, status="ran", EXECUTED="ran"),
            SimpleNamespace(node_name="b", node_type="Add", real_time=mean, status="no", EXECUTED="ran"),
        ]


def test_the_slow_first_run_of_openvino_is_not_in_the_mean(
    make_bundle: Callable[[str, str], Bundle],
) -> None:
    pytest.importorskip("openvino")
    loaded = load_engine(make_bundle("openvino", "openvino"), EngineOptions(threads=1, profile=True))
    assert isinstance(loaded, OpenVinoEngine)
    loaded._request = SlowAtFirst(loaded._request)
    loaded.run(CROPS[:1])
    ((node,),) = loaded.profile(CROPS[:1], 20)
    assert node.type == "MatMul" and node.ms == pytest.approx(0.1, abs=2e-3)


def test_a_profile_leaves_no_file(
    make_bundle: Callable[[str, str], Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle("onnx", "onnxruntime")
    (tmp_path / "here").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    load_engine(bundle, EngineOptions(profile=True)).profile(CROPS, 2)
    assert [*(tmp_path / "here").iterdir(), *(tmp_path / "temporary").iterdir()] == []


def test_only_the_known_litert_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litert, "version", lambda name: "2.9.1")
    with pytest.raises(EngineError, match=r"expected ai-edge-litert 2\.3\.x .* got 2\.9\.1") as error:
        litert.LiteRtProfile(b"", 1)
    assert "\n" not in str(error.value)


def test_a_graph_that_litert_refuses_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ai_edge_litert")
    with pytest.raises(EngineError, match="LiteRtCreateModelFromBuffer"):
        litert.LiteRtProfile(b"no graph at all, but long enough to be looked at", 1)


@pytest.mark.parametrize(
    ("expected", "kinds"),
    [
        ("convolution", ["Conv", "QLinearConv", "FusedConv", "ConvTranspose", "Convolution"]),
        ("convolution", ["GroupConvolution", "Convolution (NHWC, QC8) IGEMM", "DEPTHWISE_CONV_2D"]),
        ("matrix", ["MatMul", "FusedMatMul", "QLinearMatMul", "MatMulIntegerToFloat", "Gemm", "QGemm"]),
        ("matrix", ["FullyConnected", "Fully Connected (NC, F32) GEMM", "FULLY_CONNECTED", "BATCH_MATMUL"]),
        ("matrix", ["Batch Matrix Multiply (NC, F32) GEMM", "DynamicQuantizeMatMul"]),
        ("attention", ["QAttention", "ScaledDotProductAttention", "Attention subgraph"]),
        ("softmax", ["Softmax", "SoftMax", "Softmax (NC, F32)", "QLinearSoftmax"]),
        (
            "quantise",
            ["QuantizeLinear", "DequantizeLinear", "FakeQuantize", "Convert", "Convert (NC)", "CAST"],
        ),
        ("layout", ["Reorder", "ReorderInput", "Transpose", "Transpose (ND, X32) Transpose", "Unsqueeze"]),
        ("layout", ["Static Reshape (NC)", "Shape", "StridedSlice", "Broadcast", "Copy (NC, X32)"]),
        ("normalise", ["BatchNormalization", "LayerNormalization", "MVN", "RMS", "Normalize (ND) Reduce2"]),
        ("reduce", ["ReduceSum", "ReduceMean", "MaxPool", "Sum (ND) Reduce2", "Mean (ND) Reduce2"]),
        ("eltwise", ["Add", "QLinearAdd", "Mul", "Multiply (ND)", "Clamp (NC)", "RELU_0_TO_1", "Eltwise"]),
        ("eltwise", ["Square Root (NC)", "SELECT", "Gelu", "PRelu", "PowerStatic", "Erf", "Math", "Minimum"]),
        ("subgraph", ["Subgraph"]),
        ("NonZero", ["NonZero"]),
    ],
)
def test_operators_fall_into_their_classes(expected: str, kinds: list[str]) -> None:
    assert {kind: node_class(kind) for kind in kinds} == dict.fromkeys(kinds, expected)


def test_a_profile_adds_up_the_undisturbed_runs() -> None:
    quiet = [NodeTime("Conv", 3.0), NodeTime("Conv", 1.0), NodeTime("Gemm", 2.0), NodeTime("Add", 1.0)]
    quicker = [NodeTime("Conv", 2.0), NodeTime("Gemm", 2.0), NodeTime("Mul", 2.0), NodeTime("Add", 1.0)]
    disturbed = [NodeTime(kind, 100 * ms) for kind, ms in quiet]
    profile = summarise([disturbed] * 3 + [quiet, quicker] + [disturbed] * 3)
    assert [(one.name, one.count, one.ms) for one in profile.classes] == [
        ("convolution", 2, (4.0 + 2.0) / 2),
        ("matrix", 1, 2.0),
        ("eltwise", 2, (1.0 + 3.0) / 2),
    ]
    assert profile.classes[2].operators == {"Mul": 1.0, "Add": 1.0}
    assert profile.total_ms == pytest.approx(7.0) and profile.kernel_share == pytest.approx(5 / 7)
    assert sum(one.share for one in profile.classes) == pytest.approx(1.0)
    rows = profile_rows(profile)
    assert rows[0] == ("convolution (kernel)", "2", "3.000", "42.9%", "Conv 3.000")
    assert rows[-1] == ("kernel share", "3", "5.000", "71.4%", "")
    record = profile.to_json()
    assert list(record) == ["kernel_share", "total_ms", "classes"]
    assert set(KERNELS) == {"convolution", "matrix", "attention"}
