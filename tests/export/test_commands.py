"""The `export` command as typed: what it prints, what it writes, and how it ends when something is wrong."""

from __future__ import annotations

import copy
import errno
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import save_file

import calibrate.onnx
from edge_fer.bundle import Bundle
from edge_fer.preprocess import CropSpec
from edge_fer.samples import read_reference
from export.source import DEFAULT_CHECKPOINT
from training.models import ExpressionNetwork
from training.models.checkpoint import save_checkpoint

from .conftest import SIZE, Command, Result, lasting
from .test_certify import swap_classes

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with temporary files where a test can look for them."""
    (tmp_path / "temporary").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def assert_nothing_left(scratch: Path, *expected: str) -> None:
    assert sorted(path.name for path in (scratch / "here").iterdir()) == sorted(expected)
    left = [path.name for path in (scratch / "temporary").iterdir()]
    assert [name for name in left if not name.startswith("torchinductor_")] == []  # torch's own cache


def assert_one_line(result: Result, code: int, said: str) -> None:
    assert result.code == code, result.errors
    assert result.output == []
    assert len(result.errors) == 1 and said in result.errors[0], result.errors
    assert result.errors[0].startswith("error: ")


@pytest.fixture
def int8(checkpoint: Path, train_faces: Path, valid_faces: Path) -> list[object]:
    """The arguments of a sound int8 export."""
    arguments: list[object] = [
        "export",
        checkpoint,
        "--target",
        "onnx",
        "--precision",
        "int8",
        "--output",
        "x.fer",
    ]
    arguments += ["--golden", "synthetic", "--calibration-data", train_faces, "--parity-data", valid_faces]
    return arguments


def test_a_networks_name_gives_an_untrained_bundle(scratch: Path, command: Command) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "cli.py", "export", "grefel-lite", "--target", "onnx"],
        cwd=scratch / "here",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "grefel-lite-onnx-fp32.fer\n"
    assert "note: undecided: untrained weights" in done.stderr and "too few faces" not in done.stderr
    assert "Traceback" not in done.stderr and "\x1b" not in done.stderr
    bundle = Bundle.load(scratch / "here" / "grefel-lite-onnx-fp32.fer")
    assert bundle.spec.untrained and bundle.spec.source["checkpoint_sha256"] is None
    verdicts = {gate["name"]: gate for gate in bundle.certificate()["gates"]}  # type: ignore[index, union-attr]
    ran = {name for name, gate in verdicts.items() if gate["verdict"] == "passed"}
    assert ran == {"preprocess", "batch", "fp32 export"}
    others = [gate for name, gate in verdicts.items() if name not in ran]
    assert others and {(gate["verdict"], gate["reason"]) for gate in others} == {("not run", "untrained")}
    photo = ROOT / "examples" / "astronaut.jpg"
    refused = command("infer", photo, "--bundle", bundle.path, "--json")
    assert refused.code == 1 and refused.output == [] and "--allow-untrained" in refused.errors[0]
    allowed = command("infer", photo, "--bundle", bundle.path, "--json", "--allow-untrained")
    assert allowed.code == 0 and len(json.loads(allowed.output[0])["faces"]) == 1
    assert_nothing_left(scratch, "grefel-lite-onnx-fp32.fer")


def test_an_int8_bundle_is_written_with_its_certificate(
    scratch: Path, command: Command, int8: list[object]
) -> None:
    done = command(*int8)
    assert done.code == 0, done.errors
    assert done.output == ["x.fer"]
    assert any("Parity: " in line for line in done.errors)
    bundle = Bundle.load("x.fer")
    assert bundle.spec.quantised_ops["Conv"] == 14 and not bundle.spec.failed
    assert bundle.verdict in ("passed", "undecided")
    assert_nothing_left(scratch, "x.fer")
    assert command("infer", ROOT / "examples" / "astronaut.jpg", "--bundle", "x.fer").code == 0
    replayed = command("parity", "x.fer", "--data", int8[-1])
    assert replayed.code == 0
    first = lasting(Bundle.load("x.fer"))
    assert command(*int8).code == 0  # replaces its own bundle, with the same bytes
    assert lasting(Bundle.load("x.fer")) == first


def test_undecided_is_written_and_strict_exits_3(
    command: Command, int8: list[object], tmp_path: Path
) -> None:
    few = tmp_path / "few"
    for folder in sorted(Path(str(int8[-1])).iterdir()):
        (few / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:3]:
            (few / folder.name / file.name).write_bytes(file.read_bytes())
    done = command(*int8[:-1], few)
    assert (done.code, done.output) == (0, ["x.fer"])
    assert Bundle.load("x.fer").verdict == "undecided"
    assert any(line.startswith("note: undecided") for line in done.errors)
    strict = command(*int8[:-1], few, "--strict")
    assert (strict.code, strict.output) == (3, ["x.fer"])


def break_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = calibrate.onnx.quantise

    def broken(*arguments: object, **named: object) -> onnx.ModelProto:
        model = sound(*arguments, **named)  # type: ignore[arg-type]
        swap_classes(model)
        return model

    monkeypatch.setattr("calibrate.onnx.quantise", broken)


def test_a_failed_gate_leaves_the_report_and_no_bundle(
    scratch: Path, command: Command, int8: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_int8(monkeypatch)
    done = command(*int8)
    assert (done.code, done.output) == (3, [])
    assert done.errors[-1].startswith("error: x.fer was not written") and "x.parity.json" in done.errors[-1]
    assert_nothing_left(scratch, "x.parity.json")
    report = json.loads(Path("x.parity.json").read_text())
    assert report["verdict"] == "failed"
    assert "failed" in {gate["verdict"] for gate in report["gates"]}


def test_keep_failed_writes_the_bundle_marked(
    scratch: Path, command: Command, int8: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_int8(monkeypatch)
    done = command(*int8, "--keep-failed")
    assert (done.code, done.output) == (3, ["x.fer"])
    bundle = Bundle.load("x.fer")
    assert bundle.spec.failed and bundle.verdict == "failed"
    assert_nothing_left(scratch, "x.fer")
    used = command("infer", ROOT / "examples" / "astronaut.jpg", "--bundle", "x.fer", "--json")
    assert used.code == 0 and any("failed" in line for line in used.errors)


def test_reference_only_writes_what_parity_accepts(
    scratch: Path, command: Command, checkpoint: Path, train_faces: Path, int8: list[object]
) -> None:
    arguments = ["export", checkpoint, "--reference-only", "--parity-data", train_faces]
    done = command(*arguments, "--output", "R.npz")
    assert (done.code, done.output, done.errors) == (0, ["R.npz"], [])
    assert_nothing_left(scratch, "R.npz")
    reference = read_reference(Path("R.npz"))
    assert reference.probabilities.shape == (152, 8)
    assert np.bincount(reference.labels).tolist() == [19] * 8
    assert command("export", checkpoint, "--target", "onnx", "--output", "x.fer").code == 0
    judged = command("parity", "x.fer", "--reference", "R.npz", "--data", train_faces, "--json")
    assert judged.code == 0
    assert json.loads(judged.output[-1])["faces"] == 152
    other = command("parity", "x.fer", "--reference", "R.npz", "--data", int8[-1])
    assert other.code == 1 and "not in it" in other.errors[-1]


def test_reference_only_says_what_it_needs(command: Command, checkpoint: Path, valid_faces: Path) -> None:
    assert_one_line(command("export", checkpoint), 2, "--target none: expected onnx, openvino, tflite")
    arguments = ["export", checkpoint, "--reference-only"]
    assert_one_line(command(*arguments), 2, "--parity-data D and --output R.npz")
    sound = ["--parity-data", valid_faces, "--output", "R.npz"]
    assert_one_line(command(*arguments, *sound[:-1], "R.fer"), 2, "ends in .npz")
    for wrong in (["--precision", "int4"], ["--target", "x"]):
        assert_one_line(command(*arguments, *sound, *wrong), 2, " ".join(wrong))
    for unused in (["--precision", "fp16"], ["--golden", "synthetic"], ["--seed", 3]):
        assert_one_line(command(*arguments, *sound, *unused), 2, "and --embedding beside it alone")


def test_a_manifest_is_taken_whole_and_must_not_overlap(
    scratch: Path, command: Command, int8: list[object], train_faces: Path, valid_faces: Path
) -> None:
    made = command("calibrate", train_faces, "--output", "m.json", "--exclude", valid_faces, "--samples", 40)
    assert (made.code, made.output) == (0, ["m.json"])
    int8[int8.index(train_faces)] = "m.json"
    done = command(*int8)
    assert (done.code, done.output) == (0, ["x.fer"]), done.errors
    assert "note: calibrated on 40 faces, fewer than 100" in done.errors
    assert_one_line(command(*int8, "--samples", 30), 2, "taken whole")
    overlap = [*int8[:-1], train_faces, "--output", "y.fer"]
    assert_one_line(command(*overlap), 1, "40 of 40 are in it")
    assert_nothing_left(scratch, "m.json", "x.fer")


def test_three_faces_are_no_calibration(
    scratch: Path, command: Command, int8: list[object], train_faces: Path
) -> None:
    few = scratch / "few" / "happiness"
    few.mkdir(parents=True)
    for file in sorted((train_faces / "happiness").iterdir())[:3]:
        (few / file.name).write_bytes(file.read_bytes())
    int8[int8.index(train_faces)] = few.parent
    assert_one_line(command(*int8), 1, "expected at least 100 different calibration faces")
    assert_nothing_left(scratch)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--target", "coreml"], 2, "expected onnx, openvino, tflite"),
        (["--target", "onnx", "--precision", "int4"], 2, "expected fp32, fp16, int8, auto"),
        (["--target", "onnx", "--precision", "int8"], 2, "--calibration-data"),
        (["--target", "onnx", "--golden", "mine"], 2, "parity or synthetic"),
        (["--target", "onnx", "--golden", "parity"], 2, "--parity-data"),
        (["--target", "onnx", "--parity-data", "nowhere"], 1, "nowhere: no such file or folder"),
        (
            ["--target", "onnx", "--precision", "int8", "--calibration-data", "nowhere"],
            1,
            "nowhere: no such file or folder",
        ),
    ],
)
def test_wrong_usage_is_one_line(
    scratch: Path, command: Command, checkpoint: Path, arguments: list[str], code: int, said: str
) -> None:
    assert_one_line(command("export", checkpoint, *arguments), code, said)
    assert_nothing_left(scratch)


def test_a_missing_option_is_wrong_usage(command: Command) -> None:
    assert command("export").code == 2


def damaged_checkpoint(kind: str, folder: Path, checkpoint: Path) -> Path:
    path = folder / "damaged.safetensors"
    content = checkpoint.read_bytes()
    if kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "foreign":
        save_file({"weight": np.zeros(3, np.float32)}, path)
    elif kind == "another network":
        length = int.from_bytes(content[:8], "little")
        header = content[8 : 8 + length].replace(b'\\"grefel-lite\\"', b'\\"grefel\\"     ')
        assert len(header) == length and header != content[8 : 8 + length]
        path.write_bytes(content[:8] + header + content[8 + length :])
    elif kind == "no safetensors":
        path.write_bytes(b"PK\x03\x04 a pickle, perhaps")
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "expected a checkpoint file or a network's name"),
        ("truncated", "expected a safetensors file"),
        ("foreign", "expected a checkpoint of format"),
        ("another network", "tensors do not fit grefel"),
        ("no safetensors", "expected a safetensors file"),
    ],
)
def test_a_checkpoint_that_is_none_is_one_line(
    scratch: Path, command: Command, checkpoint: Path, kind: str, said: str
) -> None:
    path = damaged_checkpoint(kind, scratch, checkpoint)
    assert_one_line(command("export", path, "--target", "onnx"), 1, said)
    assert_nothing_left(scratch)


def test_a_network_that_answers_no_numbers_is_refused_as_that(
    scratch: Path, command: Command, small: ExpressionNetwork, int8: list[object]
) -> None:
    diverged = copy.deepcopy(small)
    next(diverged.encoder.parameters()).data.fill_(1e30)
    path = scratch / "diverged.safetensors"
    save_checkpoint(path, diverged, CropSpec(size=SIZE, margin=0.0), {})
    said = "the float network's answers are not finite"
    assert_one_line(command("export", path, "--target", "onnx"), 1, said)
    assert_one_line(command("export", path, *int8[2:-2]), 1, said)  # first asked to choose calibration faces
    assert_nothing_left(scratch)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("file/x.fer", "file is a file"),
        ("file/deeper/x.fer", "file is a file"),
        ("file", "is a file: name a folder"),
        ("foreign", "is a folder that is not a bundle"),
    ],
)
def test_a_place_that_cannot_be_written_is_left_alone(
    scratch: Path, command: Command, checkpoint: Path, place: str, said: str
) -> None:
    Path("file").write_text("mine")
    Path("foreign").mkdir()
    Path("foreign/notes.txt").write_text("mine")
    assert_one_line(command("export", checkpoint, "--target", "onnx", "--output", place), 1, said)
    assert_nothing_left(scratch, "file", "foreign")
    assert Path("file").read_text() == Path("foreign/notes.txt").read_text() == "mine"


def test_a_full_disk_leaves_nothing(
    scratch: Path, command: Command, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def fill(path: Path, data: bytes) -> int:
        if "here" in str(path) and path.name == "golden.npz":
            write(path, data[:100])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", fill)
    done = command("export", checkpoint, "--target", "onnx", "--output", "x.fer")
    assert (done.code, done.output) == (1, [])
    assert "no space left on device" in done.errors[-1] and "free some space" in done.errors[-1]
    assert_nothing_left(scratch)


@pytest.mark.parametrize(
    "step",
    [
        "export.measure.Judge.measure_fp32",
        "export.measure.measure_speed",
        "calibrate.onnx.quantise",
        "edge_fer.bundle.os.replace",
    ],
)
def test_an_interrupt_leaves_nothing(
    scratch: Path, command: Command, int8: list[object], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(step, interrupt)
    done = command(*int8)
    assert (done.code, done.output) == (130, [])
    assert done.errors[-1] == "interrupted"
    assert_nothing_left(scratch)


def test_an_interrupt_inside_the_quantiser_leaves_nothing(
    scratch: Path, command: Command, int8: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("calibrate.onnx_ranges.Tails.add", interrupt)
    assert command(*int8).code == 130
    assert_nothing_left(scratch)


def test_calibration_data_without_int8_is_said_to_be_unused(
    command: Command, checkpoint: Path, train_faces: Path
) -> None:
    done = command("export", checkpoint, "--target", "onnx", "--calibration-data", train_faces)
    assert done.code == 0
    assert "note: --calibration-data is not used with --precision fp32" in done.errors


def test_target_alone_exports_the_embedded_models_checkpoint(scratch: Path, command: Command) -> None:
    if not DEFAULT_CHECKPOINT.is_file():
        pytest.skip(f"{DEFAULT_CHECKPOINT.name} is not committed yet")
    done = command("export", "--target", "onnx")
    assert (done.code, done.output) == (0, ["grefel-lite-onnx-fp32.fer"])
    bundle = Bundle.load("grefel-lite-onnx-fp32.fer")
    assert bundle.verdict == "undecided" and not bundle.spec.untrained  # no faces to judge it on
    assert_nothing_left(scratch, "grefel-lite-onnx-fp32.fer")


def test_the_small_network_knows_its_faces(small: ExpressionNetwork, valid_faces: Path) -> None:
    """The tests above rest on a checkpoint that answers well."""
    from edge_fer.faces import load_crops, read_data
    from export.reference import TorchAnswers

    faces = read_data(str(valid_faces))
    answers = TorchAnswers(small)(load_crops(faces, CropSpec(size=SIZE, margin=0.0)))
    labels = [face.label for face in faces.faces]
    assert (answers.probabilities.argmax(axis=1) == labels).mean() > 0.95
