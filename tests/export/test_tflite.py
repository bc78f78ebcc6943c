"""The TFLite graph: agreement with PyTorch, names, bytes, and the whole export over the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edge_fer.bundle import Bundle
from edge_fer.engines import load_engine
from edge_fer.errors import MissingPackageError
from training.models import ExpressionNetwork, build

from .conftest import SIZE, Command, Converter, lasting, pictures

pytest.importorskip("litert_torch")
pytest.importorskip("ai_edge_quantizer")

from calibrate.tflite import choose_operators, operators
from edge_fer.engines.tflite import TfliteEngine
from export.onnx import ExportError
from export.rewrites import TFLITE, rewrite
from export.target import load_target
from export.tflite import ENCODER, TfliteGraphs, export_tflite


@pytest.fixture(scope="module")
def graph(lite: ExpressionNetwork, tflite_exporter: Callable[[ExpressionNetwork], bytes]) -> bytes:
    return tflite_exporter(lite)


@pytest.fixture(scope="module")
def small_graph(convert: Converter) -> bytes:
    graphs = convert("tflite")
    assert isinstance(graphs, TfliteGraphs)
    return graphs.graph


def test_the_graph_agrees_with_pytorch(graph: bytes, lite: ExpressionNetwork) -> None:
    crops = pictures(64)
    scaled = (crops / 255.0 - np.array(lite.spec.mean)) / np.array(lite.spec.std)
    with torch.inference_mode():
        expected = lite(torch.from_numpy(scaled.transpose(0, 3, 1, 2)).float())
    got = TfliteEngine.from_bytes(graph).run(crops)
    np.testing.assert_allclose(got.probabilities, expected.probabilities.numpy(), atol=1e-5)
    np.testing.assert_allclose(got.primary, expected.primary.numpy(), atol=1e-5)
    rows = got.probabilities.astype(np.float64)
    entropy = -(rows * np.log(np.maximum(rows, 1e-12))).sum(axis=1)
    np.testing.assert_allclose(got.reliability, 1 - entropy / np.log(8), atol=1e-5)


def test_no_convolution_stands_between_transposes(graph: bytes) -> None:
    kinds = [kind for kind, _, _ in operators(graph)]
    assert kinds.count("CONV_2D") + kinds.count("DEPTHWISE_CONV_2D") == 15
    assert "TRANSPOSE" not in kinds[: len(kinds) - kinds[::-1].index("CONV_2D")]


def test_the_encoder_is_told_by_its_names(graph: bytes) -> None:
    chosen = choose_operators(graph, ENCODER)
    assert sum(kind in ("CONV_2D", "DEPTHWISE_CONV_2D") for kind in chosen.values()) == 15
    assert sum(kind == "ADD" for kind in chosen.values()) == 6
    assert not any("head" in name for name in chosen)


def test_the_bytes_say_nothing_of_the_machine_and_come_again(
    small: ExpressionNetwork, small_graph: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    for trace in (b"/work", b"/home", b"/root", b"/tmp", b"site-packages", b'File "', b".py"):
        assert trace not in small_graph
    assert export_tflite(rewrite(small, TFLITE)) == small_graph
    assert capfd.readouterr() == ("", "")


class Strange(nn.Module):
    """A module that no converter knows what to do with: its shape depends on its values."""

    embedding_dim = 160

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        if faces.sum() > 0:
            raise RuntimeError("unreachable")
        return faces.mean(dim=(2, 3)).repeat(1, 54)[:, :160]


def test_what_cannot_be_converted_names_its_module() -> None:
    network = build("grefel-lite", input_size=SIZE)
    network.encoder = Strange()
    with pytest.raises(ExportError, match=r"cannot be written as TFLite: .*\(in encoder\)") as error:
        export_tflite(network.eval())
    assert "\n" not in str(error.value)


def test_the_target_is_found_and_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_target("tflite") is TfliteGraphs
    monkeypatch.setattr("export.target.TARGETS", {"tflite": "export.nothing_of_this_name:TfliteGraphs"})
    with pytest.raises(MissingPackageError, match=r"--target tflite needs the package export\.nothing"):
        load_target("tflite")


def test_a_float_bundle_is_certified_and_runs(
    tmp_path: Path, command: Command, checkpoint: Path, valid_faces: Path
) -> None:
    path = tmp_path / "x.fer"
    done = command("export", checkpoint, "--target", "tflite", "--parity-data", valid_faces, "--output", path)
    assert done.code == 0, done.errors
    bundle = Bundle.load(path)
    assert (bundle.spec.target, bundle.spec.engine) == ("tflite", "tflite")
    assert (bundle.spec.precision, bundle.spec.quantisation, bundle.spec.quantised_ops) == (
        "fp32",
        "none",
        {},
    )
    assert bundle.spec.float_ops["CONV_2D"] == 14
    assert set(bundle.spec.source["tools"]) >= {"litert-torch", "ai-edge-litert", "torch"}  # type: ignore[arg-type]
    assert bundle.verdict in ("passed", "undecided")
    golden = bundle.golden()
    assert golden is not None
    np.testing.assert_allclose(
        load_engine(bundle).run(golden.crops).probabilities, golden.probabilities, atol=1e-5
    )


def test_an_int8_bundle_is_certified_and_comes_again(
    tmp_path: Path, command: Command, checkpoint: Path, train_faces: Path, valid_faces: Path
) -> None:
    path = tmp_path / "x.fer"
    arguments = ["--target", "tflite", "--precision", "int8", "--output", path]
    arguments += ["--calibration-data", train_faces, "--parity-data", valid_faces]
    done = command("export", checkpoint, *arguments)
    assert done.code == 0, done.errors
    assert not any("INFO" in line for line in done.errors)
    bundle = Bundle.load(path)
    assert bundle.spec.quantisation == "static"
    quantised = bundle.spec.quantised_ops
    assert (quantised["CONV_2D"], quantised["ADD"]) == (14, 6)
    assert bundle.spec.float_ops["DEPTHWISE_CONV_2D"] == 1  # reads the pixels, of which luma is one channel
    assert bundle.spec.float_ops["FULLY_CONNECTED"] == 4
    assert bundle.verdict in ("passed", "undecided")
    assert command("export", checkpoint, *arguments).code == 0
    assert lasting(Bundle.load(path)) == lasting(bundle)
    assert command("parity", path, "--data", valid_faces).code == 0
