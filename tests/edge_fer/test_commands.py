"""The device commands as a user meets them: output, exit codes, one line for everything that goes wrong."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

from edge_fer.bundle import ModelSpec, write_bundle
from edge_fer.images import read_image, write_image
from edge_fer.labels import LABELS
from tests.conftest import error_lines, json_lines, pattern, run_command

ROOT = Path(__file__).parents[2]
ASTRONAUT = ROOT / "examples" / "astronaut.jpg"
# A suite that runs in the background of a shell inherits an ignored SIGINT.
LISTEN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
COMMAND = [sys.executable, "-c", f"{LISTEN}from edge_fer.commands import main; main()"]


def infer(bundle: Path, *arguments: object) -> Result:
    return run_command("infer", "--bundle", bundle, *arguments)


def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([*COMMAND, *map(str, arguments)], cwd=ROOT, **pipes)


@pytest.fixture
def faces(tmp_path: Path) -> list[Path]:
    """Three face crops in two folders; two have the same name."""
    paths = [tmp_path / "a" / "one.png", tmp_path / "a" / "two.jpg", tmp_path / "b" / "one.png"]
    for seed, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        write_image(path, pattern(seed, 60, 50))
    return paths


def test_json_has_the_design_s_shape(tiny_bundle: Path) -> None:
    result = infer(tiny_bundle, ASTRONAUT, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    (record,) = json_lines(result)
    assert list(record) == ["source", "frame", "time_s", "faces", "detector", "latency_ms"]
    assert (record["source"], record["frame"], record["time_s"]) == (str(ASTRONAUT), None, None)
    assert record["detector"] == "cascade"
    stages = ["decode", "detect", "track", "preprocess", "recognise", "total"]
    assert list(record["latency_ms"]) == stages and record["latency_ms"].pop("track") is None
    parts = list(record["latency_ms"].values())
    assert all(value > 0 for value in parts) and parts[-1] == pytest.approx(sum(parts[:-1]), abs=0.01)
    (face,) = record["faces"]
    keys = ["box", "landmarks", "label", "probabilities", "primary", "reliability", "abstained", "track"]
    assert list(face) == keys
    assert len(face["box"]) == 4 and face["landmarks"] is None and face["track"] is None
    for kind in ("probabilities", "primary"):
        assert tuple(face[kind]) == LABELS
        assert sum(face[kind].values()) == pytest.approx(1, abs=1e-5)
    assert face["label"] == max(face["probabilities"], key=face["probabilities"].get)
    assert face["abstained"] is False


def test_without_json_a_table_goes_to_standard_error(tiny_bundle: Path, faces: list[Path]) -> None:
    result = infer(tiny_bundle, *faces, "--no-detect")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "two.jpg" in result.stderr and "most probable" in result.stderr
    assert "\x1b" not in result.stderr
    alone = infer(tiny_bundle, faces[0], "--no-detect").stderr
    assert all(label in alone for label in LABELS) and "corrected" in alone
    assert "tiny onnx fp32: parity passed on 12 faces, 0 labels changed, certified on" in alone


def test_folders_and_globs_are_sources(tiny_bundle: Path, tmp_path: Path, faces: list[Path]) -> None:
    result = infer(tiny_bundle, tmp_path / "a", tmp_path / "*" / "one.png", "--no-detect", "--json")
    assert [record["source"] for record in json_lines(result)] == [
        str(faces[0]),
        str(faces[1]),
        str(faces[0]),
        str(faces[2]),
    ]
    assert all(
        record["detector"] is None and record["latency_ms"]["detect"] is None for record in json_lines(result)
    )
    assert all(record["faces"][0]["box"] is None for record in json_lines(result))


def test_a_photo_without_a_face_says_so(tiny_bundle: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "blank.png", np.full((200, 200, 3), 128, np.uint8))
    result = infer(tiny_bundle, tmp_path / "blank.png", "--json", "--csv", tmp_path / "faces.csv")
    assert result.exit_code == 0
    assert json_lines(result)[0]["faces"] == []
    assert result.stderr == f"note: {tmp_path / 'blank.png'}: no face found\n"
    (row,) = csv.DictReader((tmp_path / "faces.csv").open())
    assert row["source"] == str(tmp_path / "blank.png") and not any(list(row.values())[1:])
    table = infer(tiny_bundle, tmp_path / "blank.png", "--output", tmp_path / "out")
    assert table.exit_code == 0 and "no face found" in table.stderr
    assert read_image(tmp_path / "out" / "blank.png").shape == (200, 200, 3)


def test_one_broken_file_does_not_stop_the_others(
    tiny_bundle: Path, tmp_path: Path, faces: list[Path]
) -> None:
    (tmp_path / "broken.jpg").write_bytes(ASTRONAUT.read_bytes()[:1000])
    (tmp_path / "text.png").write_text("no picture")
    sources = [tmp_path / "missing.jpg", faces[0], tmp_path / "broken.jpg", tmp_path / "text.png", faces[1]]
    result = infer(tiny_bundle, *sources, "--no-detect", "--json", "--csv", tmp_path / "faces.csv")
    assert result.exit_code == 1
    assert [record["source"] for record in json_lines(result)] == [str(faces[0]), str(faces[1])]
    lines = error_lines(result)
    assert len(lines) == 3 == len(result.stderr.splitlines())
    for line, name in zip(lines, ("missing.jpg", "broken.jpg", "text.png"), strict=True):
        assert name in line
    assert len(list(csv.DictReader((tmp_path / "faces.csv").open()))) == 2


@pytest.mark.parametrize(
    ("mode", "size"),
    [("L", (48, 48)), ("RGBA", (48, 48)), ("I;16", (48, 48)), ("P", (48, 48)), ("RGB", (1, 1))],
)
@pytest.mark.parametrize("flag", ["--no-detect", "--json"])
def test_unusual_pictures_are_read(
    tiny_bundle: Path, tmp_path: Path, mode: str, size: tuple[int, int], flag: str
) -> None:
    Image.new(mode, size).save(tmp_path / "x.png")
    result = infer(tiny_bundle, tmp_path / "x.png", flag, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "out" / "x.png").is_file()


def test_a_decompression_bomb_is_one_line(tiny_bundle: Path, tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    result = infer(tiny_bundle, tmp_path / "bomb.png", "--json")
    assert result.exit_code == 1
    assert len(error_lines(result)) == 1 == len(result.stderr.splitlines())
    assert "pixels, expected at most 100,000,000" in result.stderr


def test_the_picture_is_upright(tiny_bundle: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(ASTRONAUT) as photo:
        photo.rotate(90, expand=True).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    (turned,) = json_lines(infer(tiny_bundle, tmp_path / "turned.jpg", "--json"))[0]["faces"]
    (upright,) = json_lines(infer(tiny_bundle, ASTRONAUT, "--json"))[0]["faces"]
    np.testing.assert_allclose(turned["box"], upright["box"], atol=6)


def test_csv_holds_what_json_holds(tiny_bundle: Path, tmp_path: Path, faces: list[Path]) -> None:
    result = infer(
        tiny_bundle, *faces, ASTRONAUT, "--json", "--csv", tmp_path / "faces.csv", "--min-reliability", "auto"
    )
    rows = list(csv.DictReader((tmp_path / "faces.csv").open()))
    found = [(record["source"], face) for record in json_lines(result) for face in record["faces"]]
    with_face = [row for row in rows if row["label"]]
    assert len(with_face) == len(found) >= 1
    for row, (source, face) in zip(with_face, found, strict=True):
        assert (row["source"], row["label"]) == (source, face["label"])
        assert [float(row[key]) for key in ("x", "y", "width", "height")] == face["box"]
        assert float(row["reliability"]) == face["reliability"]
        assert row["abstained"] == str(face["abstained"]).lower()
        for label in LABELS:
            assert float(row[f"p_{label}"]) == face["probabilities"][label]
            assert float(row[f"primary_{label}"]) == face["primary"][label]


def test_pictures_of_the_same_name_do_not_overwrite_each_other(
    tiny_bundle: Path, tmp_path: Path, faces: list[Path]
) -> None:
    out = tmp_path / "deep" / "out"
    result = infer(tiny_bundle, *faces, "--no-detect", "--output", out)
    assert result.exit_code == 0
    assert sorted(entry.name for entry in out.iterdir()) == ["one-2.png", "one.png", "two.jpg"]
    for source, name in zip(faces, ("one.png", "two.jpg", "one-2.png"), strict=True):
        drawn = read_image(out / name).astype(int)
        plain = read_image(source).astype(int)
        assert drawn.shape == plain.shape
        # The distribution covers part of the picture; the rest of it is the source's.
        assert (np.abs(drawn - plain).max(axis=2) < 40).mean() > 0.2


def test_a_source_is_never_overwritten(tiny_bundle: Path, tmp_path: Path, faces: list[Path]) -> None:
    before = faces[0].read_bytes()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for output in (["--output", tmp_path / "a"], ["--output", tmp_path / "link"], ["--csv", faces[0]]):
        result = infer(tiny_bundle, faces[0], "--no-detect", *output)
        assert result.exit_code == 1
        assert "is a source and would be overwritten" in error_lines(result)[0]
    assert faces[0].read_bytes() == before
    assert sorted(entry.name for entry in (tmp_path / "a").iterdir()) == ["one.png", "two.jpg"]


@pytest.mark.parametrize("option", ["--output", "--csv"])
def test_a_place_that_cannot_be_written_to_is_one_line(
    tiny_bundle: Path, tmp_path: Path, faces: list[Path], option: str
) -> None:
    (tmp_path / "file").write_text("mine")
    result = infer(tiny_bundle, faces[0], "--no-detect", "--json", option, tmp_path / "file" / "x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(error_lines(result)) == 1 == len(result.stderr.splitlines())
    assert infer(tiny_bundle, faces[0], "--csv", tmp_path / "a").exit_code == 1
    assert infer(tiny_bundle, faces[0], "--csv", os.devnull).exit_code == 1
    assert infer(tiny_bundle, faces[0], "--output", tmp_path / "file").exit_code == 1


def test_a_folder_without_permission_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path, tmp_path: Path, faces: list[Path]
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    result = infer(tiny_bundle, faces[0], "--output", tmp_path / "closed")
    assert result.exit_code == 1 and "permission denied" in error_lines(result)[0]


def test_abstention_is_marked(tiny_bundle: Path, faces: list[Path]) -> None:
    for asked, expected in (
        ([], False),
        (["--min-reliability", "1"], True),
        (["--min-reliability", "0"], False),
    ):
        result = infer(tiny_bundle, faces[0], "--no-detect", "--json", *asked)
        (face,) = json_lines(result)[0]["faces"]
        assert face["abstained"] is expected
        assert (face["label"] is None) is expected and len(face["probabilities"]) == len(LABELS)
    assert "(unsure)" in infer(tiny_bundle, faces[0], "--no-detect", "--min-reliability", "1").stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--no-detect", "--detector", "cascade"], 2),
        (["--min-reliability", "much"], 2),
        (["--threads", "0"], 2),
        (["--surprise"], 2),
        (["--detector", "no-such.onnx"], 1),
        (["--detector", "magic"], 1),
        (["--engine", "openvino"], 1),
        (["--provider", "cuda-of-mine"], 1),
        (["--device", "tpu"], 1),
    ],
)
def test_wrong_options_end_without_output(
    tiny_bundle: Path, faces: list[Path], arguments: list[str], code: int
) -> None:
    result = infer(tiny_bundle, faces[0], "--json", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert "Traceback" not in result.stderr and result.stderr


def test_damaged_bundles_are_one_line(tiny_bundle: Path, faces: list[Path]) -> None:
    (tiny_bundle / "model.onnx").write_bytes(b"changed")
    for arguments in (
        ["infer", faces[0], "--bundle", tiny_bundle],
        ["info", tiny_bundle],
        ["parity", tiny_bundle],
        ["bench", tiny_bundle],
        ["self-test", tiny_bundle],
    ):
        result = run_command(*arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert len(error_lines(result)) == 1 == len(result.stderr.splitlines())


def test_debug_shows_the_traceback(tiny_bundle: Path, tmp_path: Path) -> None:
    result = run_command("info", tmp_path / "no.fer", "--debug")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr and result.stderr.splitlines()[-1].startswith("error: no bundle at")


def test_untrained_and_failed_bundles(
    tmp_path: Path, tiny_spec: ModelSpec, tiny_members: dict[str, bytes], faces: list[Path]
) -> None:
    write_bundle(tmp_path / "u.fer", dataclasses.replace(tiny_spec, untrained=True), tiny_members)
    write_bundle(tmp_path / "f.fer", dataclasses.replace(tiny_spec, failed=True), tiny_members)
    refused = infer(tmp_path / "u.fer", faces[0], "--no-detect", "--json")
    assert refused.exit_code == 1 and "--allow-untrained" in error_lines(refused)[0]
    allowed = infer(tmp_path / "u.fer", faces[0], "--no-detect", "--json", "--allow-untrained")
    assert allowed.exit_code == 0 and len(json_lines(allowed)) == 1
    failed = infer(tmp_path / "f.fer", faces[0], "--no-detect", "--json")
    assert failed.exit_code == 0
    for result in (allowed, failed):
        assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("warning: ")


def test_strange_file_names_do_no_harm(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp_path = tmp_path_factory.mktemp("s")  # a short path, which the table shows whole
    names = [
        "[red]x[red].png",
        "-dash.png",
        "zażółć.png",
        "line\nbreak.png",
        "\x1b[31m.png",
        "\udcff\udcfe.png",
    ]
    for name in names:
        write_image(tmp_path / "plain.png", pattern(1, 30, 30))
        (tmp_path / "plain.png").rename(tmp_path / name)
    done = start("infer", tmp_path, "--bundle", tiny_bundle, "--no-detect", "--csv", tmp_path / "faces.csv")
    _, text = done.communicate()
    assert done.returncode == 0, text
    assert b"[red]x" in text and b"\x1b" not in text
    with (tmp_path / "faces.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        assert {Path(row["source"]).name for row in csv.DictReader(stream)} == set(names)
    listed = json_lines(infer(tiny_bundle, tmp_path, "--no-detect", "--json"))
    assert {Path(record["source"]).name for record in listed} == set(names)


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, b"interrupted\n"), (signal.SIGTERM, 143, b"terminated\n")],
)
def test_a_signal_is_one_line_and_leaves_nothing_half_written(
    tiny_bundle: Path, tmp_path: Path, faces: list[Path], number: int, code: int, said: bytes
) -> None:
    arguments = ["infer", *[faces[0]] * 5_000, "--bundle", tiny_bundle, "--no-detect", "--json"]
    done = start(*arguments, "--csv", tmp_path / "faces.csv", "--output", tmp_path / "out")
    assert done.stdout is not None and done.stderr is not None
    assert json.loads(done.stdout.readline())["faces"]
    done.send_signal(number)
    rest, text = done.communicate(timeout=60)
    assert (done.returncode, text) == (code, said)
    lines = [json.loads(line) for line in rest.splitlines()]
    assert not [entry.name for entry in tmp_path.rglob("*") if entry.name.endswith(".tmp")]
    with (tmp_path / "faces.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == len(lines) + 1 < 5_000
    for picture in (tmp_path / "out").iterdir():
        read_image(picture)


def test_a_reader_that_goes_away_is_one_line(tiny_bundle: Path, faces: list[Path]) -> None:
    done = start("infer", *[faces[0]] * 2000, "--bundle", tiny_bundle, "--no-detect", "--json")
    assert done.stdout is not None and done.stderr is not None
    done.stdout.readline()
    done.stdout.close()
    text = done.stderr.read()
    done.wait(timeout=60)
    assert (done.returncode, text) == (1, b"error: the reader of the output went away before the end\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", ["infer", "info"])
def test_a_full_disk_is_one_line(tiny_bundle: Path, faces: list[Path], command: str) -> None:
    sources = [faces[0], "--no-detect", "--bundle"] if command == "infer" else []
    with Path("/dev/full").open("wb") as full:
        done = start(command, *sources, tiny_bundle, "--json", stdout=full)
        _, text = done.communicate(timeout=60)
    assert done.returncode == 1
    assert text == b"error: no space left on device; free some space or choose another place\n"


def test_the_command_as_a_process_prints_json_and_nothing_else(tiny_bundle: Path) -> None:
    done = start("infer", ASTRONAUT, "--bundle", tiny_bundle, "--json")
    out, text = done.communicate(timeout=60)
    assert (done.returncode, text) == (0, b"")
    assert len(json.loads(out)["faces"]) == 1 and out.count(b"\n") == 1


def test_version_help_and_wrong_usage() -> None:
    assert run_command("--version").stdout == "edge-fer 0.1.0\n"
    for command in ("infer", "parity", "info", "bench", "self-test"):
        assert run_command(command, "--help").exit_code == 0
        assert f" {command} " in run_command("--help").stdout
    assert run_command("infer").exit_code == 2
    assert run_command("nonsense").exit_code == 2
