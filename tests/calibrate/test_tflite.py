"""Quantisation of a TFLite encoder: what is quantised, what stays float, and never silently nothing."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fer.engines.tflite import TfliteEngine
from edge_fer.errors import CalibrationError

torch = pytest.importorskip("torch")
pytest.importorskip("litert_torch")
pytest.importorskip("ai_edge_quantizer")

import litert_torch  # noqa: E402
from torch import nn  # noqa: E402

from calibrate.tflite import (  # noqa: E402
    DEFAULT,
    Faces,
    choose_operators,
    count_float,
    count_quantised,
    module_paths,
    operators,
    prepare,
    quantise,
    quantise_dynamic,
)

SIZE = 12
ENCODER = "ToyEncoder_encoder"
WHOLE = replace(DEFAULT, float_first=False)  # both convolutions


class ToyEncoder(nn.Module):
    """Two convolutions with a shortcut, pooling, and a BatchNorm on the pooled vector."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.norm = nn.BatchNorm1d(16)
        self.norm.running_mean.fill_(0.3)
        self.norm.running_var.fill_(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first(x))
        return self.norm(torch.relu(self.second(y) + y).mean(dim=(2, 3)))


class Toy(nn.Module):
    """The encoder under a head of two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ToyEncoder()
        self.inner = nn.Linear(16, 16)
        self.outer = nn.Linear(16, 8)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        embedding = self.encoder(image.permute(0, 3, 1, 2).float() / 127.5 - 1.0)
        probabilities = self.outer(torch.relu(self.inner(embedding))).softmax(dim=1)
        primary = embedding[:, :8].softmax(dim=1)  # a second reader: the norm cannot melt into a layer
        return {"probabilities": probabilities, "primary": primary, "reliability": probabilities.amax(dim=1)}


@pytest.fixture(scope="module")
def graph() -> bytes:
    torch.manual_seed(0)
    image = torch.zeros(1, SIZE, SIZE, 3, dtype=torch.uint8)
    return bytes(litert_torch.convert(Toy().eval(), sample_kwargs={"image": image}).model_content())


@pytest.fixture(scope="module")
def crops() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (60, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def quantised(graph: bytes, crops: NDArray[np.uint8]) -> bytes:
    return quantise(graph, ENCODER, crops, recipe=WHOLE)


def test_the_counts_are_those_of_the_drawing(graph: bytes, quantised: bytes) -> None:
    assert count_quantised(graph) == {}
    assert sum(count_float(graph).values()) == len(list(operators(graph)))
    assert count_quantised(quantised) == {"ADD": 1, "CONV_2D": 2}
    left = dict(count_float(graph))
    left["ADD"] -= 1
    left["CONV_2D"] -= 2
    assert count_float(quantised) == {kind: count for kind, count in left.items() if count}


def test_the_head_and_the_closing_norm_stay_float(graph: bytes, quantised: bytes) -> None:
    assert sorted(choose_operators(graph, ENCODER).values()) == ["ADD", "CONV_2D", "CONV_2D"]
    assert count_float(quantised)["FULLY_CONNECTED"] == 2
    assert count_float(quantised)["ADD"] >= 1  # the norm's


def test_int8_runs_from_end_to_end(quantised: bytes) -> None:
    kinds = [kind for kind, _, _ in operators(quantised)]
    assert kinds.count("QUANTIZE") == kinds.count("DEQUANTIZE") == 1
    start, end = kinds.index("QUANTIZE"), kinds.index("DEQUANTIZE")
    assert set(kinds[start + 1 : end]) == {"ADD", "CONV_2D"}


def test_weights_are_s8_with_a_scale_per_channel(quantised: bytes) -> None:
    weights = [inputs[1] for kind, inputs, _ in operators(quantised) if kind == "CONV_2D"]
    for weight in weights:
        assert len(weight.quantization.scale) == 16
        assert not np.any(weight.quantization.zeroPoint)


def test_int8_is_close_to_float(graph: bytes, quantised: bytes, crops: NDArray[np.uint8]) -> None:
    expected = TfliteEngine.from_bytes(graph).run(crops).probabilities
    got = TfliteEngine.from_bytes(quantised).run(crops).probabilities
    assert 0 < np.abs(got - expected).max() < 0.05


def test_the_same_input_gives_the_same_bytes(
    graph: bytes, quantised: bytes, crops: NDArray[np.uint8]
) -> None:
    assert quantise(graph, ENCODER, crops, recipe=WHOLE) == quantised


def test_the_faces_decide_the_ranges(graph: bytes, quantised: bytes, crops: NDArray[np.uint8]) -> None:
    assert quantise(graph, ENCODER, crops // 4, recipe=WHOLE) != quantised


def test_the_graph_says_nothing_of_the_machine(quantised: bytes) -> None:
    for trace in (b"/work", b"/home", b"/tmp", b"site-packages", b'File "'):
        assert trace not in quantised


def test_nothing_to_quantise_is_an_error(graph: bytes, crops: NDArray[np.uint8]) -> None:
    with pytest.raises(CalibrationError, match="got none named NoEncoder"):
        quantise(graph, "NoEncoder", crops[:2])


def test_an_encoder_without_convolutions_is_an_error(
    graph: bytes, crops: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calibrate.tflite.QUANTISED_TYPES", ("ADD",))
    with pytest.raises(CalibrationError, match="expected operators to quantise"):
        quantise(graph, ENCODER, crops[:2])


def test_the_quantiser_is_quiet_and_logging_is_as_before(
    graph: bytes, crops: NDArray[np.uint8], capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []
    quantise(graph, ENCODER, crops, progress=seen.append)
    assert seen == list(range(1, 61))
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET


def test_a_progress_bar_finds_the_terminal(
    graph: bytes, crops: NDArray[np.uint8], capfd: pytest.CaptureFixture[str]
) -> None:
    quantise(graph, ENCODER, crops[:20], progress=lambda done: print(done, file=sys.stderr))
    assert capfd.readouterr().err.split() == [str(number) for number in range(1, 21)]


def test_the_faces_are_read_one_by_one(crops: NDArray[np.uint8]) -> None:
    faces = Faces(crops, None)
    np.testing.assert_array_equal(np.concatenate([item["image"] for item in faces]), crops)
    assert len(list(faces)) == 60


def test_the_convolution_that_reads_the_pixels_stays_float(graph: bytes, crops: NDArray[np.uint8]) -> None:
    found = quantise(graph, ENCODER, crops[:10])
    assert count_quantised(found) == {"ADD": 1, "CONV_2D": 1}
    kinds = [kind for kind, _, _ in operators(found)]
    assert kinds.index("QUANTIZE") > kinds.index("CONV_2D")


def test_a_name_holds_the_paths_of_the_modules_that_were_fused() -> None:
    own = "a.Wrapper_fused/c._Encoder_encoder/t.List_stages/d.Block_0"
    paths = module_paths(f"{own};;{own}/x.Conv_key_value;2;a.Wrapper_fused/c._Encoder_encoder/t.List_other;")
    assert {"fused.encoder.stages.0", "encoder.stages.0", "encoder.stages.0.key_value"} <= set(paths)
    assert not [path for path in paths if "other" in path] and "encoder.stages" not in paths
    assert module_paths("serving_default_args_0;3") == ["default_args_0"]


def test_modules_stay_float_when_asked(graph: bytes, crops: NDArray[np.uint8]) -> None:
    kept = replace(WHOLE, float_modules=frozenset({"encoder.second"}))
    assert count_quantised(quantise(graph, ENCODER, crops[:10], recipe=kept))["CONV_2D"] == 1
    with pytest.raises(CalibrationError, match=r"got encoder\.third$"):
        quantise(
            graph, ENCODER, crops[:10], recipe=replace(WHOLE, float_modules=frozenset({"encoder.third"}))
        )
    with pytest.raises(CalibrationError, match="got none named"):
        quantise(graph, ENCODER, crops[:10], recipe=replace(WHOLE, float_modules=frozenset({"encoder"})))


def test_what_was_prepared_serves_several_recipes(graph: bytes, crops: NDArray[np.uint8]) -> None:
    prepared = prepare(graph, ENCODER, crops[:10])
    for recipe in (WHOLE, replace(WHOLE, symmetric=True), DEFAULT):
        expected = quantise(graph, ENCODER, crops[:10], recipe=recipe)
        assert quantise(graph, ENCODER, crops[:0], recipe=recipe, known=lambda: prepared) == expected
    with pytest.raises(CalibrationError, match="expected ranges minmax, got mean"):
        quantise(graph, ENCODER, crops, recipe=replace(WHOLE, ranges="mean"), known=lambda: prepared)


def activations(graph: bytes) -> dict[str, tuple[float, int]]:
    """Return scale and zero point of what every convolution and sum writes."""
    written = [(kind, outputs[0]) for kind, _, outputs in operators(graph) if kind in ("ADD", "CONV_2D")]
    return {
        f"{kind} {tensor.name!r}": (
            float(tensor.quantization.scale[0]),
            int(tensor.quantization.zeroPoint[0]),
        )
        for kind, tensor in written
        if tensor.quantization is not None and tensor.quantization.scale is not None
    }


def test_ranges_do_not_depend_on_the_order_of_the_faces_but_a_moving_average_does(
    graph: bytes, crops: NDArray[np.uint8]
) -> None:
    shaded = crops.copy()
    shaded[40:] //= 8
    for ranges, same in (("minmax", True), ("mean", False)):
        recipe = replace(WHOLE, ranges=ranges)
        both = [quantise(graph, ENCODER, order, recipe=recipe) for order in (shaded, shaded[::-1].copy())]
        assert (activations(both[0]) == activations(both[1])) is same


def test_symmetric_activations_have_zero_points_of_zero(graph: bytes, crops: NDArray[np.uint8]) -> None:
    points = [
        {zero for _, zero in activations(quantise(graph, ENCODER, crops[:10], recipe=recipe)).values()}
        for recipe in (WHOLE, replace(WHOLE, symmetric=True))
    ]
    assert points[1] == {0} != points[0]


@pytest.mark.parametrize("change", [{"weights": "s8-7bit"}, {"activations": "u8"}, {"ranges": "entropy"}])
def test_what_the_tool_does_not_offer_is_refused(
    graph: bytes, crops: NDArray[np.uint8], change: dict[str, object]
) -> None:
    with pytest.raises(CalibrationError, match=f"AI Edge Quantizer: expected {next(iter(change))}"):
        quantise(graph, ENCODER, crops[:2], recipe=replace(DEFAULT, **change))  # type: ignore[arg-type]


def test_dynamic_int8_stores_weights_and_leaves_activations_float(
    graph: bytes, crops: NDArray[np.uint8]
) -> None:
    found = quantise_dynamic(graph, ENCODER)
    assert count_quantised(found) == {"CONV_2D": 2}
    assert "QUANTIZE" not in {kind for kind, _, _ in operators(found)}
    assert count_quantised(quantise_dynamic(graph, ENCODER, float_modules={"encoder.first"})) == {
        "CONV_2D": 1
    }
    expected = TfliteEngine.from_bytes(graph).run(crops).probabilities
    got = TfliteEngine.from_bytes(found).run(crops).probabilities
    assert 0 < np.abs(got - expected).max() < 0.05
    with pytest.raises(CalibrationError, match="got none named NoEncoder"):
        quantise_dynamic(graph, "NoEncoder")
