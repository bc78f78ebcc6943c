"""The OpenVINO target: its agreement with PyTorch, its bytes, and bundles from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("openvino")
pytest.importorskip("nncf")

from calibrate.openvino import DEFAULT
from edge_fer.bundle import Bundle
from edge_fer.engines import load_engine
from edge_fer.engines.openvino import OpenVinoEngine
from edge_fer.faces import load_crops, read_data
from edge_fer.parity.metrics import jensen_shannon
from edge_fer.preprocess import CropSpec
from export.openvino import OpenVinoGraphs, without_notes
from export.reference import TorchAnswers
from export.source import read_source
from training.models import ExpressionNetwork

from .conftest import SIZE, Command, Exporter, pictures

TOLERANCE = 1e-5
CROP = CropSpec(size=SIZE, margin=0.0)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, exporter: Exporter) -> None:
    """Exports of known weights are at hand."""
    monkeypatch.setattr("export.onnx.export_onnx", exporter)


@pytest.fixture(scope="module")
def converted(lite: ExpressionNetwork, exporter: Exporter) -> OpenVinoGraphs:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.onnx.export_onnx", exporter)
        return OpenVinoGraphs(lite)


@pytest.fixture(scope="module")
def members(converted: OpenVinoGraphs) -> dict[str, bytes]:
    return dict(converted.float_graph().members)


@pytest.fixture(scope="module")
def engine(members: dict[str, bytes]) -> OpenVinoEngine:
    return OpenVinoEngine.from_bytes(members["model.xml"], members["model.bin"])


def test_it_answers_as_pytorch_does(engine: OpenVinoEngine, lite: ExpressionNetwork) -> None:
    crops = pictures(64)
    expected, got = TorchAnswers(lite)(crops), engine.run(crops)
    np.testing.assert_allclose(got.probabilities, expected.probabilities, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(got.primary, expected.primary, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(got.reliability, expected.reliability, rtol=0, atol=TOLERANCE)
    assert got.embedding is None
    assert np.ptp(got.probabilities, axis=0).max() > 100 * TOLERANCE  # the pictures do differ


def test_a_row_does_not_depend_on_its_batch(engine: OpenVinoEngine) -> None:
    crops = pictures(64)
    together = engine.run(crops)
    for row, crop in enumerate(crops):
        alone = engine.run(crop[None])
        np.testing.assert_allclose(
            alone.probabilities[0], together.probabilities[row], rtol=0, atol=TOLERANCE
        )
        np.testing.assert_allclose(alone.reliability[0], together.reliability[row], rtol=0, atol=TOLERANCE)
    for count in (0, 1, 17):
        assert engine.run(np.zeros((count, 64, 64, 3), np.uint8)).primary.shape == (count, 8)


def test_the_weights_are_float32(members: dict[str, bytes], lite: ExpressionNetwork) -> None:
    parameters = sum(value.numel() for value in lite.parameters())
    assert set(members) == {"model.xml", "model.bin"}
    assert len(members["model.bin"]) > 3.8 * parameters  # BatchNorms are folded
    assert b'"f16"' not in members["model.xml"]


def assert_gives_nothing_away(members: dict[str, bytes]) -> None:
    here = ["/work", "/tmp", "site-packages", "/home/", str(Path(__file__).resolve().parents[2])]
    content = b"".join(members.values())
    assert not [text for text in here if text.encode() in content]
    assert b"conversion_parameters" not in content and b"nncf" not in content


def test_it_gives_nothing_away_and_the_same_network_gives_the_same_bytes(
    known: None, members: dict[str, bytes], lite: ExpressionNetwork
) -> None:
    assert_gives_nothing_away(members)
    assert OpenVinoGraphs(lite).float_graph().members == members


def test_int8_repeats_to_the_byte_and_keeps_the_head_float(
    known: None, small: ExpressionNetwork, valid_faces: Path
) -> None:
    crops = load_crops(read_data(str(valid_faces)), CROP)
    graphs = OpenVinoGraphs(small)
    seen: list[int] = []
    first = graphs.int8_graph(crops[:20], DEFAULT, seen.append)
    second = graphs.int8_graph(crops[:20], DEFAULT, None)
    assert first == second and max(seen) == 20
    assert_gives_nothing_away(dict(first.members))
    exact = graphs.float_graph()
    assert exact.quantisation == "none" and exact.quantised_ops == {}
    assert first.quantisation == "static"
    assert exact.float_ops["Convolution"] == 15
    # The convolution that reads the pixels stays float.
    assert (first.quantised_ops["Convolution"], first.float_ops["Convolution"]) == (14, 1)
    # The head's four products and its softmaxes, by the network's drawing.
    assert first.float_ops["MatMul"] == exact.float_ops["MatMul"]
    assert first.float_ops["Softmax"] == exact.float_ops["Softmax"]
    assert len(first.members["model.bin"]) < 0.32 * len(exact.members["model.bin"])


def test_only_notes_on_the_whole_graph_are_removed() -> None:
    graph = b"<net><layers><layer><rt_info><a /></rt_info></layer></layers><rt_info><path /></rt_info></net>"
    assert b"<rt_info><a /></rt_info>" in without_notes(graph)
    assert b"path" not in without_notes(graph)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_command_writes_a_bundle_that_passes(
    tmp_path: Path,
    command: Command,
    checkpoint: Path,
    train_faces: Path,
    valid_faces: Path,
    precision: str,
) -> None:
    path = tmp_path / "small.fer"
    arguments: list[object] = ["export", checkpoint, "--target", "openvino", "--precision", precision]
    arguments += ["--parity-data", valid_faces, "--golden", "synthetic", "--output", path]
    if precision == "int8":
        arguments += ["--calibration-data", train_faces, "--samples", 120]
    done = command(*arguments)
    assert (done.code, done.output[-1]) == (0, str(path))
    bundle = Bundle.load(path)
    spec = bundle.spec
    assert (spec.target, spec.engine, spec.precision) == ("openvino", "openvino", precision)
    # Without attention what stays float beside int8 is the head: bf16 would only lose digits.
    assert spec.float_compute == "fp32"
    tools = spec.source["tools"]
    assert set(tools) == {"torch", "onnx", "openvino", "nncf", "numpy", "edge-fer"}  # type: ignore[arg-type]
    verdicts = {gate["name"]: gate["verdict"] for gate in certificate(bundle)["gates"]}
    assert verdicts["fp32 export"] == verdicts["preprocess"] == verdicts["batch"] == "passed"
    assert "failed" not in verdicts.values()
    assert_close(bundle, checkpoint, load_crops(read_data(str(valid_faces)), CROP))


def certificate(bundle: Bundle) -> dict[str, list[dict[str, str]]]:
    return json.loads(bundle.member("parity.json"))


def assert_close(bundle: Bundle, checkpoint: Path, crops: NDArray[np.uint8]) -> None:
    expected = TorchAnswers(read_source(str(checkpoint)).network)(crops).probabilities
    got = load_engine(bundle).run(crops).probabilities
    if bundle.spec.precision == "fp32":
        np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)
    else:
        assert 0 < jensen_shannon(expected, got).mean() < 0.005
        assert (expected.argmax(axis=1) == got.argmax(axis=1)).mean() > 0.98
