"""The fused graph: its contract, its agreement with PyTorch, its names, and what it must not give away."""

from __future__ import annotations

import collections
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from edge_fer.engines.base import Outputs
from edge_fer.engines.onnxruntime import OnnxRuntimeEngine
from edge_fer.preprocess import CropSpec
from export.golden import synthetic_samples
from export.onnx import ExportError, drop_outputs, encoder_nodes, export_onnx
from export.source import read_source
from training.models import ExpressionNetwork, build

from .conftest import Exporter, pictures

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def model(exporter: Exporter, lite: ExpressionNetwork) -> onnx.ModelProto:
    return exporter(lite)


@pytest.fixture(scope="module")
def plain(model: onnx.ModelProto) -> onnx.ModelProto:
    return drop_outputs(model, ["embedding"])


@pytest.fixture(scope="module")
def engine(plain: onnx.ModelProto) -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine.from_bytes(plain.SerializeToString())


@pytest.fixture(scope="module")
def faces() -> NDArray[np.uint8]:
    """Noise, black, white, a gradient and the demo photo's face."""
    face = synthetic_samples()[0].crop(CropSpec(size=64, margin=0.0))
    return np.concatenate([pictures(64), face[None]])


def torch_outputs(network: ExpressionNetwork, crops: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
    """Answer in PyTorch from pixels normalised in float64, not by the wrapper under test."""
    spec = network.spec
    scaled = (crops / 255.0 - np.array(spec.mean)) / np.array(spec.std)
    with torch.inference_mode():
        output = network(torch.from_numpy(scaled.transpose(0, 3, 1, 2)).float())
    return [output.probabilities.double().numpy(), output.primary.double().numpy()]


def assert_consistent(outputs: Outputs) -> None:
    """Check that rows are distributions and that reliability is 1 - H / log C of them."""
    probabilities = outputs.probabilities.astype(np.float64)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(outputs.primary.sum(axis=1), 1.0, rtol=0, atol=TOLERANCE)
    entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-300))).sum(axis=1)
    expected = 1.0 - entropy / np.log(probabilities.shape[1])
    np.testing.assert_allclose(outputs.reliability, expected, rtol=0, atol=TOLERANCE)


def describe(value: onnx.ValueInfoProto) -> tuple[str, int, list[int | str]]:
    kind = value.type.tensor_type
    return value.name, kind.elem_type, [d.dim_param or d.dim_value for d in kind.shape.dim]


def test_input_and_outputs_are_the_contract(plain: onnx.ModelProto) -> None:
    [(name, kind, shape)] = [describe(value) for value in plain.graph.input]
    assert (name, kind, shape[1:]) == ("image", onnx.TensorProto.UINT8, [64, 64, 3])
    assert isinstance(shape[0], str)
    outputs = [describe(value) for value in plain.graph.output]
    assert [name for name, _, _ in outputs] == ["probabilities", "primary", "reliability"]
    assert {kind for _, kind, _ in outputs} == {onnx.TensorProto.FLOAT}
    assert [shape[1:] for _, _, shape in outputs] == [[8], [8], []]
    assert all(isinstance(shape[0], str) for _, _, shape in outputs)


def test_an_old_onnxruntime_can_read_it(plain: onnx.ModelProto) -> None:
    onnx.checker.check_model(plain, full_check=True)
    assert plain.ir_version <= 10
    [opset] = plain.opset_import
    assert opset.domain == "" and opset.version <= 21
    assert {node.domain for node in plain.graph.node} == {""}
    assert not plain.functions


def test_it_answers_as_pytorch_does(
    engine: OnnxRuntimeEngine, lite: ExpressionNetwork, faces: NDArray[np.uint8]
) -> None:
    outputs = engine.run(faces)
    probabilities, primary = torch_outputs(lite, faces)
    np.testing.assert_allclose(outputs.probabilities, probabilities, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(outputs.primary, primary, rtol=0, atol=TOLERANCE)
    assert np.ptp(outputs.probabilities, axis=0).max() > 100 * TOLERANCE  # the pictures do differ
    assert_consistent(outputs)


def test_colours_are_read_as_red_green_blue(engine: OnnxRuntimeEngine, lite: ExpressionNetwork) -> None:
    red = np.zeros((1, 64, 64, 3), np.uint8)
    red[:, 16:48, 16:48, 0] = 255
    np.testing.assert_allclose(
        engine.run(red).probabilities, torch_outputs(lite, red)[0], rtol=0, atol=TOLERANCE
    )
    swapped = engine.run(np.ascontiguousarray(red[..., ::-1])).probabilities
    assert np.abs(engine.run(red).probabilities - swapped).max() > 10 * TOLERANCE


@pytest.mark.parametrize("order", [range(9), [8, 7, 6, 5, 4, 3, 2, 1, 0], [3, 3, 8], [5, 6, 0, 1]])
def test_a_row_does_not_depend_on_its_batch(
    engine: OnnxRuntimeEngine, faces: NDArray[np.uint8], order: list[int]
) -> None:
    together = engine.run(faces[list(order)])
    for row, index in enumerate(order):
        alone = engine.run(faces[index : index + 1])
        for got, expected in (
            (together.probabilities[row], alone.probabilities[0]),
            (together.primary[row], alone.primary[0]),
            (together.reliability[row], alone.reliability[0]),
        ):
            np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)


def test_batches_of_any_size_run(engine: OnnxRuntimeEngine) -> None:
    for count in (1, 2, 3, 17):
        outputs = engine.run(np.zeros((count, 64, 64, 3), np.uint8))
        assert outputs.probabilities.shape == outputs.primary.shape == (count, 8)
        assert outputs.reliability.shape == (count,)


def test_it_gives_nothing_away(plain: onnx.ModelProto) -> None:
    content = plain.SerializeToString()
    here = [str(Path(__file__).resolve().parents[2]), str(Path.home()), "site-packages", "/home/", "/work"]
    assert not [text for text in here if len(text) > 1 and text.encode() in content]
    notes = [plain, plain.graph, *plain.graph.node, *plain.graph.input, *plain.graph.output]
    notes += [*plain.graph.initializer, *plain.graph.value_info]
    assert not [item for item in notes if item.doc_string or len(item.metadata_props)]


def test_nodes_are_named_after_modules(model: onnx.ModelProto, lite: ExpressionNetwork) -> None:
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    modules = {name for name, _ in lite.named_modules() if name} | {"graph"}
    for node in model.graph.node:
        module, _, operator = node.name.rpartition("/")
        assert module in modules, node.name
        assert operator.split("_")[0] == node.op_type
    convolutions = {name for name, module in lite.named_modules() if isinstance(module, nn.Conv2d)}
    linears = {name for name, module in lite.named_modules() if isinstance(module, nn.Linear)}
    named = collections.defaultdict(set)
    for node in model.graph.node:
        named[node.op_type].add(node.name.rpartition("/")[0])
    assert named["Conv"] == convolutions
    assert named["Gemm"] == linears


def test_encoder_nodes_are_those_before_the_embedding(model: onnx.ModelProto) -> None:
    encoder = set(encoder_nodes(model))
    # Downstream, found by walking forwards: the opposite way from the code under test.
    reached = {"embedding"}
    downstream = set()
    for node in model.graph.node:
        if reached & set(node.input):
            downstream.add(node.name)
            reached.update(node.output)
    assert downstream and not downstream & encoder
    assert {node.name for node in model.graph.node if node.op_type == "Conv"} <= encoder
    assert not [name for name in encoder if name.startswith("head")]
    assert len(encoder) + len(downstream) == len(model.graph.node)


def test_dropping_an_output_leaves_the_model_alone(model: onnx.ModelProto, plain: onnx.ModelProto) -> None:
    assert [output.name for output in model.graph.output][-1] == "embedding"
    assert len(model.graph.output) == 4 and len(plain.graph.output) == 3
    assert len(model.graph.node) == len(plain.graph.node)
    folded = [node.name for node in plain.graph.node if node.op_type == "BatchNormalization"]
    assert all(not name.startswith(("encoder.stem", "encoder.stages")) for name in folded)


class Unsupported(nn.Module):
    """An operator that ONNX does not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x)


class Branching(nn.Module):
    """A path that depends on the pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(("module", "said"), [(Unsupported(), "bessel_j0"), (Branching(), "data-dependent")])
def test_what_cannot_be_exported_is_named_with_its_module(
    module: nn.Module, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    network = build("grefel-lite", input_size=32)
    encoder = nn.Sequential(
        collections.OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), odd=module)
    )
    network.encoder = nn.Sequential(collections.OrderedDict(inner=encoder, wide=nn.Linear(3, 160)))
    with pytest.raises(ExportError) as raised:
        export_onnx(network)
    text = str(raised.value)
    assert "grefel-lite" in text and said in text and "encoder.inner.odd" in text
    assert "\n" not in text
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_grefel_is_exported_too(exporter: Exporter) -> None:
    network = read_source("grefel").network
    model = exporter(network)
    assert all(node.name.startswith(("encoder", "head", "graph")) for node in model.graph.node)
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == sum(isinstance(module, nn.Conv2d) for module in network.modules())
    assert set(convolutions) <= set(encoder_nodes(model))
    engine = OnnxRuntimeEngine.from_bytes(drop_outputs(model, ["embedding"]).SerializeToString())
    faces = pictures(network.spec.input_size, noise=1)
    outputs = engine.run(faces)
    probabilities, primary = torch_outputs(network, faces)
    np.testing.assert_allclose(outputs.probabilities, probabilities, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(outputs.primary, primary, rtol=0, atol=TOLERANCE)
    alone = [engine.run(face[None]).probabilities[0] for face in faces]
    np.testing.assert_allclose(alone, outputs.probabilities, rtol=0, atol=TOLERANCE)
    assert_consistent(outputs)
