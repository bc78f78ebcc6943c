"""Certifying: a bundle is measured on faces it was not calibrated on, and a broken one does not pass."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from calibrate.onnx import DEFAULT, quantise
from edge_fer.engines.onnxruntime import OnnxRuntimeEngine
from edge_fer.errors import CalibrationError, CheckpointError, InputError, MissingPackageError, UsageError
from edge_fer.faces import FaceSet, face_hash, load_crops, read_data
from edge_fer.parity.metrics import jensen_shannon
from edge_fer.preprocess import CropSpec
from edge_fer.samples import MAX_SOURCE_BYTES
from export import certify
from export.certify import Exported
from export.data import choose_calibration, load_parity_set
from export.options import ExportOptions
from export.reference import TorchAnswers
from export.source import read_source
from training.models import ExpressionNetwork
from training.models.checkpoint import save_checkpoint

from .conftest import SIZE, Exporter

CROP = CropSpec(size=SIZE, margin=0.0)


@pytest.fixture(scope="module")
def options(
    checkpoint: Path, train_faces: Path, valid_faces: Path, tmp_path_factory: pytest.TempPathFactory
) -> ExportOptions:
    return ExportOptions(
        checkpoint=str(checkpoint),
        precision="int8",
        output=tmp_path_factory.mktemp("certified") / "small.fer",
        calibration_data=str(train_faces),
        samples=120,
        parity_data=str(valid_faces),
        golden="synthetic",
    )


@pytest.fixture(scope="module")
def exported(options: ExportOptions, exporter: Exporter) -> Exported:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.onnx.export_onnx", exporter)
        return certify.certify(options)


@pytest.fixture(scope="module")
def graph(exported: Exported) -> onnx.ModelProto:
    return onnx.load_from_string(exported.members["model.onnx"])


def gates(exported: Exported) -> dict[str, str]:
    return {gate.name: gate.verdict for gate in exported.report.gates}


def test_no_gate_fails_on_a_sound_bundle(exported: Exported) -> None:
    verdicts = gates(exported)
    assert verdicts["preprocess"] == verdicts["batch"] == verdicts["fp32 export"] == "passed"
    assert "failed" not in verdicts.values()
    assert {name for name, verdict in verdicts.items() if verdict == "not run"} == {"per class"}
    assert exported.report.faces == 152
    assert exported.report.figures["labelled_faces"] == 152


def test_the_certificate_is_the_report(exported: Exported) -> None:
    certificate = json.loads(exported.members["parity.json"])
    expected = {**exported.report.to_json(), "recipe": DEFAULT.to_json()}
    assert certificate == json.loads(json.dumps(expected))
    assert set(exported.members) == {"model.onnx", "golden.npz", "reference.npz", "parity.json"}


def test_the_spec_says_what_was_done(exported: Exported, options: ExportOptions) -> None:
    spec = exported.spec
    assert (spec.model, spec.target, spec.precision, spec.quantisation) == (
        "grefel-lite",
        "onnx",
        "int8",
        "static",
    )
    assert not spec.untrained and not spec.failed and spec.input == CROP
    assert spec.weights == {"licence": "CC0", "training_data": "drawn patterns"}
    assert spec.source["checkpoint_sha256"] == read_source(options.checkpoint).sha256
    assert len(str(spec.source["calibration_sha256"])) == 64
    assert set(spec.source["tools"]) == {"torch", "onnx", "onnxruntime", "numpy", "edge-fer"}


def test_every_convolution_is_quantised_and_nothing_of_the_head(
    exported: Exported, graph: onnx.ModelProto, small: ExpressionNetwork
) -> None:
    # Counted from the other side: who reads a dequantised tensor, and what the network is made of.
    producers = {output: node for node in graph.graph.node for output in node.output}

    def dequantised(name: str) -> bool:
        return name in producers and producers[name].op_type == "DequantizeLinear"

    convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == sum(isinstance(m, torch.nn.Conv2d) for m in small.modules()) == 15
    # The one that reads the pixels stays float.
    [first] = [node for node in convolutions if node.name == "encoder.stem.0/Conv"]
    assert not any(map(dequantised, first.input))
    assert all(dequantised(name) for node in convolutions if node is not first for name in node.input)
    additions = [n for n in graph.graph.node if n.op_type == "Add" and all(map(dequantised, n.input))]
    assert exported.spec.quantised_ops == {"Conv": 14, "Add": len(additions)}
    head = [node for node in graph.graph.node if node.name.startswith(("head", "graph"))]
    assert len(head) > 50
    assert not [node.name for node in head if any(map(dequantised, node.input))]
    total = sum(node.op_type not in ("QuantizeLinear", "DequantizeLinear") for node in graph.graph.node)
    assert sum(exported.spec.quantised_ops.values()) + sum(exported.spec.float_ops.values()) == total


def test_the_int8_graph_keeps_the_contract(graph: onnx.ModelProto) -> None:
    onnx.checker.check_model(graph, full_check=True)
    assert graph.ir_version <= 10
    assert [(entry.domain, entry.version <= 21) for entry in graph.opset_import] == [("", True)]
    assert [output.name for output in graph.graph.output] == ["probabilities", "primary", "reliability"]
    assert not len(graph.metadata_props) and not graph.doc_string
    content = graph.SerializeToString()
    assert not [text for text in (b"/work", b"/tmp", b"site-packages", b"/home/") if text in content]


def test_weights_keep_seven_bits(graph: onnx.ModelProto) -> None:
    weights = [
        numpy_helper.to_array(item)
        for item in graph.graph.initializer
        if item.data_type == onnx.TensorProto.INT8
    ]
    kernels = [weight for weight in weights if weight.ndim == 4]
    assert len(kernels) == 14
    assert min(int(kernel.min()) for kernel in kernels) >= -64
    assert max(int(kernel.max()) for kernel in kernels) <= 64
    assert max(int(np.abs(kernel).max()) for kernel in kernels) >= 63  # and they do use them


def test_int8_answers_nearly_as_float(
    exported: Exported, small: ExpressionNetwork, valid_faces: Path
) -> None:
    crops = load_crops(read_data(str(valid_faces)), CROP)
    expected = TorchAnswers(small)(crops)
    got = OnnxRuntimeEngine.from_bytes(exported.members["model.onnx"]).run(crops)
    assert jensen_shannon(expected.probabilities, got.probabilities).mean() < 0.005
    assert not np.array_equal(expected.probabilities, got.probabilities)
    assert (expected.probabilities.argmax(axis=1) == got.probabilities.argmax(axis=1)).mean() > 0.98


def test_calibration_faces_are_never_parity_faces(
    options: ExportOptions, valid_faces: Path, train_faces: Path
) -> None:
    source = read_source(options.checkpoint)
    parity = load_parity_set(read_data(str(valid_faces)), source)
    assert parity is not None
    known = {face_hash(crop) for crop in parity.crops}
    both = choose_calibration(options, read_data(str(train_faces)), source, parity)
    assert len(both.crops) == 120 and not known & {face_hash(crop) for crop in both.crops}
    same = ExportOptions(calibration_data=str(valid_faces), precision="int8")
    with pytest.raises(CalibrationError, match="outside the parity set, got 0"):
        choose_calibration(same, read_data(str(valid_faces)), source, parity)


def test_every_data_is_listed_once(
    options: ExportOptions, valid_faces: Path, train_faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[str] = []

    def list_faces(data: str) -> FaceSet:
        listed.append(data)
        return read_data(data)

    monkeypatch.setattr("export.data.read_data", list_faces)
    certify.certify(options)
    assert sorted(listed) == sorted((str(train_faces), str(valid_faces)))


def swap_classes(model: onnx.ModelProto) -> None:
    """Move every anchor to the next class."""
    [anchors] = [item for item in model.graph.initializer if item.name.endswith("anchors")]
    moved = np.roll(numpy_helper.to_array(anchors), 1, axis=0)
    anchors.CopyFrom(numpy_helper.from_array(moved, anchors.name))


def shrink_ranges(model: onnx.ModelProto) -> None:
    """Make every activation saturate at a thirtieth of its range."""
    scales = {node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for item in [item for item in model.graph.initializer if item.name in scales]:
        item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item) / np.float32(30), item.name))


@pytest.mark.parametrize("damage", [swap_classes, shrink_ranges])
def test_a_broken_int8_graph_fails(
    damage: object, options: ExportOptions, exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **named: object) -> onnx.ModelProto:
        model = quantise(*arguments, **named)  # type: ignore[arg-type]
        damage(model)  # type: ignore[operator]
        return model

    monkeypatch.setattr("export.onnx.export_onnx", exporter)
    monkeypatch.setattr("calibrate.onnx.quantise", broken)
    exported = certify.certify(options)
    verdicts = gates(exported)
    assert exported.report.verdict == "failed"
    assert verdicts["accuracy"] == verdicts["flips"] == verdicts["distribution"] == "failed"
    assert verdicts["fp32 export"] == verdicts["preprocess"] == "passed"


def test_a_float_graph_that_differs_fails_the_fp32_gate(
    options: ExportOptions, exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(network: ExpressionNetwork) -> onnx.ModelProto:
        model = exporter(network)
        swap_classes(model)
        return model

    monkeypatch.setattr("export.onnx.export_onnx", wrong)
    fp32 = ExportOptions(checkpoint=options.checkpoint, output=options.output)
    assert gates(certify.certify(fp32))["fp32 export"] == "failed"


def test_int8_without_parity_data_says_that_nothing_was_compared(
    options: ExportOptions, exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.onnx.export_onnx", exporter)
    alone = ExportOptions(
        checkpoint=options.checkpoint,
        precision="int8",
        output=options.output,
        calibration_data=options.calibration_data,
        samples=20,
    )
    exported = certify.certify(alone)
    assert exported.notes[0] == "calibrated on 20 faces, fewer than 100"
    assert "nothing compared the int8 graph" in exported.notes[1]
    assert json.loads(exported.members["parity.json"])["warning"] == exported.notes[0]
    assert gates(exported)["accuracy"] == "not run"


def test_a_names_weights_are_seeded_and_leave_the_callers_randomness_alone() -> None:
    torch.manual_seed(3)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    first = read_source("grefel-lite")
    assert torch.equal(torch.rand(1), drawn)
    again = read_source("grefel-lite").network.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.network.state_dict().items())
    assert first.untrained and first.sha256 is None and not first.network.training


def test_a_checkpoint_whose_crops_do_not_fit_is_refused(small: ExpressionNetwork, tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    save_checkpoint(path, small, CropSpec(size=SIZE + 16, margin=0.0), {})
    with pytest.raises(CheckpointError, match=r"32 pixels.*48"):
        read_source(str(path))


def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certify, "load_parity_set", lambda *_: pytest.fail("work was done"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file; name another place"):
        certify.certify(ExportOptions(checkpoint="grefel-lite", output=tmp_path / "file" / "a" / "x.fer"))
    for nameless in ("/", ".", tmp_path / ".."):
        with pytest.raises(UsageError, match="expected a bundle's name"):
            certify.certify(ExportOptions(checkpoint="grefel-lite", output=Path(nameless)))
    monkeypatch.setattr("edge_fer.output.os.access", lambda *_: False)
    with pytest.raises(InputError, match="read-only"):
        certify.certify(ExportOptions(checkpoint="grefel-lite", output=tmp_path / "x.fer"))


def test_what_target_or_data_lack_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certify, "load_parity_set", lambda *_, **__: pytest.fail("work was done"))
    sound = ExportOptions(
        checkpoint="grefel-lite", output=tmp_path / "x.fer", precision="int8", calibration_data="faces"
    )
    with pytest.raises(CalibrationError, match="expected ranges minmax or percentile or entropy, got mse"):
        certify.certify(replace(sound, recipe="ranges=mse"))
    with pytest.raises(CalibrationError, match="expected s8 activations in a symmetric recipe, got u8"):
        certify.certify(replace(sound, recipe="symmetric=yes"))
    for odd in ("stages.0", "head", "encoder"):
        said = rf"expected parts of the encoder of grefel-lite, such as encoder\.\S+, got {odd}$"
        with pytest.raises(CalibrationError, match=said):
            certify.certify(replace(sound, recipe=f"float_modules={odd}"))

    with pytest.raises(InputError, match="faces: no such file or folder"):
        certify.certify(sound)
    (tmp_path / "big" / "neutral").mkdir(parents=True)
    (tmp_path / "big" / "neutral" / "a.png").write_bytes(bytes(MAX_SOURCE_BYTES + 1))
    big = ExportOptions(checkpoint="grefel-lite", output=sound.output, parity_data=str(tmp_path / "big"))
    with pytest.raises(InputError, match="use --golden synthetic"):
        certify.certify(big)

    def lacking(_: str) -> None:
        raise ModuleNotFoundError("No module named 'nncf'", name="nncf")

    monkeypatch.setattr("export.target.importlib.import_module", lacking)
    with pytest.raises(MissingPackageError, match="needs the package nncf"):
        certify.certify(replace(sound, target="openvino"))
