"""Every kind of backbone, shortened, on every target: it answers as PyTorch does, in float and in int8."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edge_fer.engines import Outputs
from edge_fer.labels import LABELS
from edge_fer.preprocess import CropSpec
from edge_fer.spec import OUTPUTS, ModelSpec
from export.measure import loaded
from export.reference import TorchAnswers
from export.target import Converted, Graph, load_target
from training.models import ExpressionNetwork, build
from training.models.resnet import Layout

from .conftest import PACKAGES, TARGETS, Exporter, pictures

SIZE = 32
MODELS = "training.models"
# What has weights, as the three targets call it.
CARRIERS = (
    "Conv",
    "Gemm",
    "MatMul",
    "Convolution",
    "GroupConvolution",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
)


@dataclass(frozen=True, slots=True)
class Shortened:
    """A network's name and head, and the table that is replaced by a shorter one with the same parts.

    `carriers` is how many convolutions and matrix products with weights its encoder then has.
    """

    name: str
    table: str
    value: object
    carriers: int
    head: str = "linear"


def shortened() -> dict[str, Shortened]:
    """Return the cases by name."""
    basic, ibn = Layout((1, 1, 1, 1), bottleneck=False), Layout((1, 1, 1, 1), bottleneck=True, instance=True)
    return {
        "resnet18": Shortened("resnet18", f"{MODELS}.network.RESNETS", {"resnet18": basic}, 12),
        "resnet50_ibn": Shortened("resnet50_ibn", f"{MODELS}.network.RESNETS", {"resnet50_ibn": ibn}, 17),
        "mobilenet_v1": Shortened(
            "mobilenet_v1", f"{MODELS}.mobilenet.SEPARABLE", ((64, 2), (128, 2), (128, 1)), 7
        ),
        "mobilenet_v2": Shortened(
            "mobilenet_v2",
            f"{MODELS}.mobilenet.INVERTED",
            ((1, 16, 1, 1), (6, 24, 1, 2), (6, 32, 2, 2), (6, 40, 1, 1)),
            16,
        ),
        "shufflenet_v1": Shortened("shufflenet_v1", f"{MODELS}.shufflenet.STAGES", ((240, 2), (480, 1)), 10),
        "swin_t": Shortened("swin_t", f"{MODELS}.swin.DEPTHS", (2, 0, 0, 1), 16),
        "dan": Shortened("resnet18", f"{MODELS}.network.RESNETS", {"resnet18": basic}, 12, head="dan"),
        "rul": Shortened("resnet18", f"{MODELS}.network.RESNETS", {"resnet18": basic}, 12, head="rul"),
    }


CASES = shortened()


@pytest.fixture(scope="module")
def network() -> Callable[[str], ExpressionNetwork]:
    """Build a shortened network that has seen pictures: its BatchNorms have statistics."""
    known: dict[str, ExpressionNetwork] = {}

    def built(case: str) -> ExpressionNetwork:
        if case not in known:
            short = CASES[case]
            torch.manual_seed(9)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(short.table, short.value)
                made = build(short.name, input_size=SIZE, head=short.head)
            for module in made.modules():
                if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                    module.momentum = 1.0
            with torch.no_grad():
                made(torch.from_numpy(faces()).permute(0, 3, 1, 2).float() / 64 - 2)
            known[case] = made.eval()
        return known[case]

    return built


def faces() -> NDArray[np.uint8]:
    """Sixteen smooth coloured pictures and the structured ones."""
    coarse = np.random.default_rng(10).integers(0, 256, (16, 4, 4, 3), dtype=np.uint8)
    return np.concatenate([coarse.repeat(SIZE // 4, axis=1).repeat(SIZE // 4, axis=2), pictures(SIZE)[-3:]])


@pytest.fixture
def converted(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, exporter: Exporter
) -> Callable[[str, ExpressionNetwork], Converted]:
    """Convert a network for a target; what ONNX and OpenVINO share is exported once."""

    def convert(target: str, network: ExpressionNetwork) -> Converted:
        for package in PACKAGES[target]:
            pytest.importorskip(package)
        monkeypatch.setattr("export.onnx.export_onnx", exporter)
        return load_target(target)(network)

    return convert


def answers(
    target: str, converted: Converted, graph: Graph, network: ExpressionNetwork, precision: str
) -> Outputs:
    """Run a graph on the pictures as a device would."""
    spec = ModelSpec(
        model=network.spec.model,
        labels=network.spec.labels,
        input=CropSpec(size=SIZE, margin=0.0),
        outputs=OUTPUTS,
        target=target,
        engine=converted.engine,
        precision=precision,
        quantisation=graph.quantisation,
        quantised_ops=graph.quantised_ops,
        float_ops=graph.float_ops,
        untrained=True,
        min_reliability=None,
        source={},
        weights={},
        float_compute=graph.float_compute,
    )
    with loaded(spec, graph.members) as (_, engine):
        return engine.run(faces())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("target", TARGETS)
def test_a_backbone_runs_on_a_target(
    target: str,
    case: str,
    network: Callable[[str], ExpressionNetwork],
    converted: Callable[[str, ExpressionNetwork], Converted],
) -> None:
    made = network(case)
    expected = TorchAnswers(made)(faces())
    assert expected.probabilities.std(axis=0).max() > 0.01  # faces get different answers
    graphs = converted(target, made)
    got = answers(target, graphs, graphs.float_graph(), made, "fp32")
    np.testing.assert_allclose(got.probabilities, expected.probabilities, atol=5e-5)  # half of the gate
    np.testing.assert_array_equal(got.primary, got.probabilities)
    int8 = graphs.int8_graph(faces(), graphs.default_recipe, None)
    assert int8.quantisation == "static"
    # The first convolution reads pixels and stays float; a head that reads maps may add its own.
    assert sum(int8.quantised_ops.get(kind, 0) for kind in CARRIERS) >= CASES[case].carriers - 1
    rounded = answers(target, graphs, int8, made, "int8")
    spread = np.abs(expected.probabilities - 1 / len(LABELS)).max()
    assert np.abs(rounded.probabilities - expected.probabilities).max() <= 0.5 * spread
    np.testing.assert_array_equal(rounded.primary, rounded.probabilities)
