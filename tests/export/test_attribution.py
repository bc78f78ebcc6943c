"""Attribution: the block that was broken on purpose is the one that is named, on every target."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from scipy.spatial.distance import jensenshannon

import calibrate.onnx
from calibrate.manifest import CalibrationSet
from edge_fer.errors import CalibrationError
from edge_fer.faces import Face, FaceSet, load_crops, read_data
from edge_fer.preprocess import CropSpec
from edge_fer.samples import Reference
from export.attribution import BLOCK_COLUMNS, attribute, choose_controls
from export.golden import make_golden, synthetic_samples
from export.measure import ParitySet
from export.options import ExportOptions
from export.reference import TorchAnswers, make_reference
from export.source import Source, read_source
from export.target import Graph, load_target
from export.workshop import Workshop, units
from training.models import ExpressionNetwork

from .conftest import PACKAGES, SIZE, TARGETS, Command, Exporter
from .test_certify import swap_classes

NAMES = ("calm", "glad", "sad")
# A power of two: what is multiplied by it loses no digit.
FACTOR = 256


def reference(probabilities: NDArray[np.float32]) -> Reference:
    """Make reference outputs of faces that are numbered by their hashes."""
    count = len(probabilities)
    return Reference(
        labels=np.full(count, -1, np.int16),
        hashes=np.array([f"{row:064x}" for row in range(count)]),
        probabilities=probabilities,
        primary=probabilities,
        reliability=np.zeros(count, np.float32),
        name="made up",
        names=NAMES,
    )


def distributions(*margins: float) -> NDArray[np.float32]:
    """Return one face per margin: how far the first class is above the second, the third has a tenth."""
    first = 0.45 + np.array(margins) / 2
    return np.stack([first, 0.9 - first, np.full(len(margins), 0.1)], axis=1).astype(np.float32)


def test_every_block_is_undone_and_the_flipped_faces_are_asked_with_as_many_others() -> None:
    expected = distributions(0.05, 0.4, 0.1, 0.3, -0.5, 0.02)
    got = distributions(-0.04, 0.41, -0.06, 0.29, -0.05, 0.2)  # the rows 0 and 2 are flipped
    crops = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    undone = {  # of the rows 0, 2, 4 and 5
        "a": distributions(-0.01, -0.02, -0.2, -0.1),
        "b": distributions(0.05, -0.06, -0.2, -0.1),
        "c": distributions(0.05, 0.1, -0.5, 0.02),
        "d": None,  # holds no quantiser
    }
    asked: list[str] = []
    done: list[int] = []

    def undo(block: str, faces: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        asked.append(block)
        # Of those that kept their label the rows 4 and 5 are the nearest to another one.
        assert faces.ravel().tolist() == [0, 2, 4, 5]
        if block == "e":
            raise CalibrationError("nothing is left")
        return undone[block]

    found = attribute(reference(expected), got, crops, ["a", "b", "c", "d", "e"], undo, done.append)
    assert asked == ["a", "b", "c", "d", "e"] and done == [1, 2, 3, 4, 5]
    said = found.to_json()
    assert (said["flips"], said["unrestored"], said["controls"]) == (2, 0, 2)
    blocks = {str(one["block"]): one for one in said["blocks"]}  # type: ignore[attr-defined]
    assert list(blocks) == ["c", "b", "a"] and said["skipped"] == {"e": "nothing is left"}
    assert [(b["restored"], b["share"], b["broken"]) for b in blocks.values()] == [
        (2, 1.0, 0),
        (1, 0.5, 1),
        (0, 0.0, 1),
    ]
    # b brings the row 0 back to where it was and leaves the row 2, c brings both.
    first, second = (
        jensenshannon(expected[row].astype(float), got[row].astype(float)) ** 2 / 2 for row in (0, 2)
    )
    assert blocks["b"]["js_drop"] == pytest.approx(first, rel=1e-5)
    assert blocks["c"]["js_drop"] == pytest.approx(first + second, rel=1e-5)
    assert said["faces"] == [
        {"face": 0, "hash": f"{0:064x}", "from": "calm", "to": "glad", "restored_by": ["c", "b"]},
        {"face": 2, "hash": f"{2:064x}", "from": "calm", "to": "glad", "restored_by": ["c"]},
    ]
    rows = found.rows()
    assert [row[:3] for row in rows[:2]] == [("c", "2 of 2", "0 of 2"), ("b", "1 of 2", "1 of 2")]
    assert all(len(row) == len(BLOCK_COLUMNS) for row in rows)
    json.dumps(said, allow_nan=False)


def test_without_a_flip_nothing_is_made() -> None:
    same = distributions(0.1, -0.2)
    crops = np.zeros((2, 1, 1, 1), np.uint8)
    found = attribute(
        reference(same), same, crops, ["a"], lambda *_: pytest.fail("a graph was made"), lambda _: None
    )
    nothing = {"flips": 0, "unrestored": 0, "controls": 0, "blocks": [], "faces": [], "skipped": {}}
    assert found.to_json() == nothing and found.rows() == []
    assert found.title == "Attribution: 0 flips, 0 that no single block restores"


def test_controls_are_as_near_to_another_label_as_the_flipped_faces_to_theirs() -> None:
    generator = np.random.default_rng(0)
    expected = generator.dirichlet(np.ones(4), 300).astype(np.float32)
    got = np.abs(expected + generator.normal(0, 0.1, expected.shape)).astype(np.float32)
    got /= got.sum(axis=1, keepdims=True)
    changed = expected.argmax(axis=1) != got.argmax(axis=1)
    flipped = np.flatnonzero(changed)
    chosen = choose_controls(expected, got, flipped)
    assert len(set(chosen.tolist())) == len(flipped) > 20 and not changed[chosen].any()
    ordered = np.sort(got, axis=1)
    way = got.max(axis=1)[flipped] - got[flipped, expected[flipped].argmax(axis=1)]
    assert np.abs(way - (ordered[chosen, -1] - ordered[chosen, -2])).max() < 0.05
    # Most of these faces are flipped: every other one is a control.
    assert sorted(choose_controls(expected[:9], got[:9], np.arange(7)).tolist()) == [7, 8]


def spoil(network: ExpressionNetwork, block: str) -> ExpressionNetwork:
    """Return a copy with one channel inside a block so loud that 8 bits hear no other; it computes the same.

    ReLU(k x) = k ReLU(x), k > 0: the next convolution takes the factor back (the reverse of cross-layer
    equalisation, Nagel et al. 2019, Eq. 6).
    """
    spoiled = copy.deepcopy(network)
    inside = spoiled.get_submodule(block)
    norm, behind = inside.conv1[1], inside.conv2[0]  # type: ignore[index, union-attr]
    for values in (norm.weight.data, norm.bias.data):
        values[:4] *= FACTOR
    behind.weight.data[:, :4] /= FACTOR
    return spoiled


def workshop(
    target: str,
    network: ExpressionNetwork,
    calibration: NDArray[np.uint8],
    parity: NDArray[np.uint8],
    recipe: str | None = None,
) -> Workshop:
    """Return a workshop whose parity faces have no labels."""
    crop = CropSpec(size=network.spec.input_size, margin=0.0)
    source = Source(network, crop, "0" * 64, {})
    answer = TorchAnswers(network)
    unlabelled = tuple(Face(Path(f"{row}.png"), None, None) for row in range(len(parity)))
    faces = FaceSet("made up", network.spec.labels, unlabelled, "")
    return Workshop(
        ExportOptions(target=target, precision="int8", recipe=recipe),
        source,
        load_target(target)(network),
        CalibrationSet("made up", (), calibration, 0, None),
        make_golden(synthetic_samples(), crop, answer),
        ParitySet(faces, parity, make_reference(faces, parity, answer, network.spec.labels)),
    )


@pytest.fixture
def remembered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, exporter: Exporter) -> str:
    """A target, to which the same network is converted once only."""
    target = str(request.param)
    for package in PACKAGES[target]:
        pytest.importorskip(package)
    monkeypatch.setattr("export.onnx.export_onnx", exporter)
    if target == "tflite":
        monkeypatch.setattr("export.tflite.export_tflite", request.getfixturevalue("tflite_exporter"))
    return target


@pytest.mark.parametrize(
    ("remembered", "recipe"),
    [*((target, None) for target in TARGETS), ("tflite", "dynamic")],
    indirect=["remembered"],
)
def test_a_block_that_8_bits_cannot_hold_is_named(
    remembered: str,
    recipe: str | None,
    small: ExpressionNetwork,
    train_faces: Path,
    valid_faces: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    block = "encoder.stages.1.1"
    crop = CropSpec(size=SIZE, margin=0.0)
    calibration, parity = (load_crops(read_data(str(data)), crop) for data in (train_faces, valid_faces))
    # Between two drawn classes each, where labels are easily lost.
    parity = (parity // 2 + parity[np.random.default_rng(3).permutation(len(parity))] // 2).astype(np.uint8)
    shop = workshop(remembered, spoil(small, block), calibration[::10], parity, recipe)
    judged = shop.attributed(shop.make("int8"))
    found = judged.report.details["attribution"]
    assert isinstance(found, dict)
    first, *others = found["blocks"]
    assert found["flips"] == judged.report.figures["flips"] >= 8
    assert found["controls"] == min(found["flips"], len(parity) - found["flips"])
    assert first["block"] == block
    assert first["restored"] >= 0.85 * found["flips"]
    assert first["broken"] <= 0.1 * found["controls"]
    assert max(one["restored"] for one in others) < 0.5 * first["restored"]
    assert first["js_drop"] > 5 * max(one["js_drop"] for one in others)
    # The stem's convolution reads the pixels: static int8 leaves it float anyway.
    float_anyway = set() if recipe else {"encoder.stem"}
    assert {one["block"] for one in found["blocks"]} == set(units(small)) - float_anyway
    assert found["skipped"] == {}
    table = capsys.readouterr().err
    assert f"Attribution: {found['flips']} flips, {found['unrestored']} that no single block" in table
    assert table.index(block) < min(table.index(one["block"]) for one in others)


def double_scale(graph: Graph, block: str) -> Graph:
    """Return an int8 ONNX graph with the scale of one of a block's weights doubled, where it is int8."""
    model = onnx.load_from_string(graph.members["model.onnx"])
    dequantisers = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.name.startswith(f"{block}.conv1.") and node.input[1] in dequantisers:
            scale = arrays[dequantisers[node.input[1]].input[1]]
            doubled = numpy_helper.to_array(scale) * np.float32(2)
            scale.CopyFrom(numpy_helper.from_array(doubled, scale.name))
    members = {"model.onnx": model.SerializeToString(deterministic=True)}
    return Graph(members, graph.quantisation, graph.quantised_ops, graph.float_ops)


def test_a_doubled_scale_in_the_committed_network_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    source = read_source(None)
    crop = CropSpec(size=source.crop.size, margin=0.0)
    faces = np.stack([sample.crop(crop) for sample in synthetic_samples()]).astype(float)
    generator = np.random.default_rng(4)
    # Mixtures of the demo photo's variants and drawn patterns: between two labels, many of them.
    one, other = (faces[generator.integers(0, len(faces), 300)] for _ in range(2))
    share = generator.uniform(0.2, 0.8, (300, 1, 1, 1))
    crops = (share * one + (1 - share) * other + generator.normal(0, 8, one.shape)).clip(0, 255)
    crops = crops.astype(np.uint8)
    shop = workshop("onnx", source.network, crops[:40], crops[40:])
    block, made = "encoder.stages.1.0", shop.converted.int8_graph
    monkeypatch.setattr(shop.converted, "int8_graph", lambda *given: double_scale(made(*given), block))
    found = shop.attributed(shop.static(frozenset())).report.details["attribution"]
    assert isinstance(found, dict)
    first, *others = found["blocks"]
    assert (first["block"], found["flips"] >= 8) == (block, True)
    assert first["restored"] >= 0.9 * found["flips"]
    assert max(one["restored"] for one in others) < 0.5 * first["restored"]


@pytest.mark.parametrize("remembered", ["onnx"], indirect=True)
def test_a_graph_without_quantisers_has_nothing_to_attribute(
    remembered: str, small: ExpressionNetwork, capsys: pytest.CaptureFixture[str]
) -> None:
    faces = np.random.default_rng(0).integers(0, 256, (20, SIZE, SIZE, 3), dtype=np.uint8)
    shop = workshop(remembered, small, faces[:10], faces[10:])
    judged = shop.make("fp16")
    assert shop.attributed(judged) is judged
    assert "no attribution: fp16 was taken, which quantises nothing" in capsys.readouterr().err


def test_what_lies_behind_the_blocks_is_blamed_on_none(
    tmp_path: Path,
    command: Command,
    checkpoint: Path,
    train_faces: Path,
    valid_faces: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sound = calibrate.onnx.quantise

    def swapped(*arguments: object, **named: object) -> onnx.ModelProto:
        model = sound(*arguments, **named)  # type: ignore[arg-type]
        swap_classes(model)
        return model

    monkeypatch.setattr("calibrate.onnx.quantise", swapped)
    data = ["--calibration-data", train_faces, "--parity-data", valid_faces, "--golden", "synthetic"]
    arguments = ["--target", "onnx", "--precision", "int8", "--samples", 100, "--attribution", *data]
    done = command("export", checkpoint, *arguments, "--output", tmp_path / "x.fer")
    assert (done.code, done.output) == (3, [])
    report = json.loads((tmp_path / "x.parity.json").read_text())
    found = report["details"]["attribution"]
    assert found["flips"] == report["figures"]["flips"] == found["unrestored"] > 30
    assert {one["restored"] for one in found["blocks"]} == {0} and len(found["blocks"]) == 6
    assert {tuple(face["restored_by"]) for face in found["faces"]} == {()}
    assert any(line.startswith("Attribution: ") for line in done.errors)


def test_untrained_weights_have_no_labels_to_lose(
    tmp_path: Path, command: Command, train_faces: Path, valid_faces: Path
) -> None:
    data = ["--calibration-data", train_faces, "--parity-data", valid_faces]
    arguments = ["--target", "onnx", "--precision", "int8", "--attribution", *data]
    done = command("export", "grefel-lite", *arguments, "--output", tmp_path / "x.fer")
    assert (done.code, done.output, list(tmp_path.iterdir())) == (2, [], [])
    assert done.errors == ["error: --attribution compares labels, untrained weights have none: leave it out"]
