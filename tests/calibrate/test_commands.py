"""The `calibrate` command as typed: the manifest it writes and how it ends when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import pytest
from typer.testing import CliRunner

import cli
from edge_fer.bundle import Bundle
from edge_fer.faces import FaceSet, face_hash, load_crops, read_data
from edge_fer.preprocess import CropSpec
from tests.conftest import edit, tiny_outputs

from .conftest import draw_faces

CROP = CropSpec(size=24, margin=0.0)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_faces(tmp_path_factory.mktemp("faces"), {"anger": 60, "fear": 50, "neutral": 40}, seed=4)


def calibrate(*arguments: object) -> tuple[int, list[str], list[str]]:
    """Run `python cli.py calibrate ...`; return exit code and the lines of both outputs."""
    done = CliRunner().invoke(cli.app, ["calibrate", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit | click.ClickException):
        raise done.exception
    return done.exit_code, done.stdout.splitlines(), done.stderr.splitlines()


def hashes(data: str) -> set[str]:
    faces: FaceSet = read_data(data)
    return {face_hash(crop) for crop in load_crops(faces, CROP)}


def test_the_path_is_the_only_line_of_output(faces: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "m.json"
    assert calibrate(faces, "--output", path, "--samples", 120) == (0, [str(path)], [])
    content = json.loads(path.read_text())
    assert content["format"] == "edge-fer-manifest-1"
    assert (content["seed"], content["warning"], len(content["faces"])) == (0, None, 120)
    assert [entry.name for entry in path.parent.iterdir()] == ["m.json"]


def test_the_same_command_gives_the_same_bytes(faces: Path, tmp_path: Path) -> None:
    first, second, other = (tmp_path / name for name in ("a.json", "b.json", "c.json"))
    for path, seed in ((first, 0), (second, 0), (other, 1)):
        assert calibrate(faces, "--output", path, "--seed", seed, "--samples", 100)[0] == 0
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()


def test_excluded_faces_are_left_out(faces: Path, tmp_path: Path) -> None:
    some, rest = tmp_path / "some.json", tmp_path / "rest.json"
    assert calibrate(faces, "--output", some, "--samples", 40)[0] == 0
    assert calibrate(faces, "--output", rest, "--exclude", some)[0] == 0
    assert not hashes(str(some)) & hashes(str(rest))
    assert len(read_data(str(rest)).faces) == 110


def test_faces_to_leave_out_are_never_all_in_memory(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def load(some: FaceSet, *arguments: object) -> object:
        sizes.append(len(some.faces))
        return load_crops(some, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("calibrate.manifest.load_crops", load)
    monkeypatch.setattr("edge_fer.faces.load_crops", load)
    others = draw_faces(tmp_path / "others", {"anger": 20}, seed=9)
    output = tmp_path / "m.json"
    assert calibrate(faces, "--output", output, "--exclude", others, "--samples", 100)[0] == 0
    assert len(sizes) == 120 and set(sizes) == {1}


def test_fewer_than_wanted_is_said(faces: Path, tmp_path: Path) -> None:
    code, _, errors = calibrate(faces, "--output", tmp_path / "m.json")
    assert code == 0
    assert len(errors) == 1 and "150 faces to calibrate on, fewer than 300" in errors[0]


def test_few_faces_on_purpose_are_a_warning(faces: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    code, output, errors = calibrate(faces, "--output", path, "--samples", 30)
    assert (code, output) == (0, [str(path)])
    assert errors == ["note: calibrated on 30 faces, fewer than 100"]
    assert json.loads(path.read_text())["warning"] == "calibrated on 30 faces, fewer than 100"


@pytest.mark.parametrize(
    ("data", "output", "code", "said"),
    [
        ("three", "m.json", 1, "expected at least 100 different calibration faces"),
        ("nowhere", "m.json", 1, "no such file or folder"),
        ("empty", "m.json", 1, "expected one sub-folder per class"),
        ("broken", "m.json", 1, "000.png"),
        ("faces", "m.txt", 2, "ends in .json"),
        ("faces", "file/m.json", 1, "cannot be written"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(
    faces: Path, tmp_path: Path, data: str, output: str, code: int, said: str
) -> None:
    (tmp_path / "faces").symlink_to(faces)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    draw_faces(tmp_path / "three", {"anger": 3}, seed=5)
    (draw_faces(tmp_path / "broken", {"anger": 1}, seed=5) / "anger" / "000.png").write_bytes(b"\x89PNG")
    before = sorted(tmp_path.iterdir())
    got, output_lines, errors = calibrate(tmp_path / data, "--output", tmp_path / output)
    assert (got, output_lines) == (code, [])
    assert len(errors) == 1 and errors[0].startswith("error: ") and said in errors[0]
    assert sorted(tmp_path.iterdir()) == before


def test_an_interrupt_leaves_nothing(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edge_fer.output.os.replace", interrupt)
    assert calibrate(faces, "--output", tmp_path / "m.json", "--samples", 100) == (130, [], ["interrupted"])
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_spreads_the_choice_over_its_confidence(
    faces: Path, tmp_path: Path, tiny_bundle: Path
) -> None:
    path = tmp_path / "m.json"
    assert calibrate(faces, "--output", path, "--samples", 100, "--bundle", tiny_bundle) == (
        0,
        [str(path)],
        [],
    )
    content = json.loads(path.read_text())
    assert content["bundle"] == Bundle.load(tiny_bundle).digest
    crops = load_crops(read_data(str(path)), Bundle.load(tiny_bundle).spec.input)
    expected = tiny_outputs(crops)[2]
    np.testing.assert_allclose([face["confidence"] for face in content["faces"]], expected, atol=1e-5)
    by_class = tmp_path / "c.json"
    assert calibrate(faces, "--output", by_class, "--samples", 100)[0] == 0
    assert hashes(str(path)) != hashes(str(by_class))


def test_an_untrained_bundle_is_not_asked(faces: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    edit(tiny_bundle, lambda fields: fields.update(untrained=True))
    code, output, errors = calibrate(faces, "--output", tmp_path / "m.json", "--bundle", tiny_bundle)
    assert (code, output) == (1, []) and len(errors) == 1
    assert "untrained weights" in errors[0] and "leave --bundle out" in errors[0]
    assert "--allow-untrained" not in errors[0]  # an option of other commands


def test_a_quantised_bundle_is_not_asked(faces: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    edit(tiny_bundle, lambda fields: fields.update(precision="int8", quantisation="static"))
    path = tmp_path / "m.json"
    code, output, errors = calibrate(faces, "--output", path, "--bundle", tiny_bundle)
    assert (code, output) == (1, []) and len(errors) == 1
    assert "expected a float bundle to ask for its confidence, got int8 (static)" in errors[0]
    assert not path.exists()
