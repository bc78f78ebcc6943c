"""`infer` on videos and streams as a user meets it: lines, tables, files, and ends of every kind."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fer.images import read_image
from tests.benchmarks import soak
from tests.clips import ASTRONAUT, moving_faces, write_clip
from tests.conftest import error_lines, json_lines, run_command
from tests.edge_fer.sources.mjpeg_camera import MjpegCamera
from tests.edge_fer.sources.painted import number_in

ROOT = Path(__file__).parents[2]
# A suite that runs in the background of a shell inherits an ignored SIGINT.
LISTEN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
COMMAND = [sys.executable, "-c", LISTEN + soak.CODE, "infer"]
FRAMES = 50


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "two.mp4", moving_faces(FRAMES, faces=2))


def frames_of(video: Path) -> list[NDArray[np.uint8]]:
    capture = cv2.VideoCapture(str(video))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames


def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([*COMMAND, *map(str, arguments)], cwd=ROOT, **pipes)


def test_a_video_gives_a_line_per_frame_with_time_and_tracks(clip: Path, tmp_path: Path) -> None:
    result = run_command("infer", clip, "--json", "--csv", tmp_path / "faces.csv")
    assert (result.exit_code, result.stderr) == (0, "")
    records = json_lines(result)
    assert [record["frame"] for record in records] == list(range(FRAMES))
    np.testing.assert_allclose([record["time_s"] for record in records], np.arange(FRAMES) / 25, atol=1e-3)
    assert {face["track"] for record in records for face in record["faces"]} == {1, 2}
    assert sum(len(record["faces"]) == 2 for record in records) >= 0.95 * FRAMES
    assert {record["detector"] for record in records} == {"cascade"}
    detected = [record["frame"] for record in records if record["latency_ms"]["detect"] is not None]
    assert detected[0] == 0 and 3 < len(detected) < FRAMES / 3
    assert all(record["latency_ms"]["track"] is not None for record in records)
    rows = list(csv.DictReader((tmp_path / "faces.csv").open()))
    faces = [(record, face) for record in records for face in record["faces"]]
    assert len(rows) == len(faces)
    for row, (record, face) in zip(rows, faces, strict=True):
        assert (int(row["frame"]), float(row["time_s"])) == (record["frame"], record["time_s"])
        assert (int(row["track"]), row["label"]) == (face["track"], face["label"])


def test_two_runs_over_a_file_give_the_same(clip: Path) -> None:
    runs = [json_lines(run_command("infer", clip, "--json", "--threads", "1")) for _ in range(2)]
    for records in runs:
        for record in records:
            del record["latency_ms"]
    assert runs[0] == runs[1]


def test_annotated_video_time_line_and_table(clip: Path, tmp_path: Path) -> None:
    result = run_command("infer", clip, ASTRONAUT, "--output", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "People in" in result.stderr and "#2" in result.stderr and "\x1b" not in result.stderr
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["astronaut.jpg", "two-timeline.png", "two.mp4"]
    assert read_image(tmp_path / "out" / "two-timeline.png").shape[1] == 1280
    drawn, plain = frames_of(tmp_path / "out" / "two.mp4"), frames_of(clip)
    assert len(drawn) == FRAMES and drawn[0].shape == (480, 640, 3)
    changed = np.abs(drawn[9].astype(int) - plain[9]).max(axis=2) > 60
    assert 0.02 < changed.mean() < 0.4  # boxes, plates and panels, and nothing else


def test_a_selection_of_frames(clip: Path) -> None:
    def frames(*options: object) -> list[int]:
        return [record["frame"] for record in json_lines(run_command("infer", clip, "--json", *options))]

    assert frames("--every", 10) == [0, 10, 20, 30, 40]
    assert frames("--start", 0.4, "--end", 0.6) == [10, 11, 12, 13, 14]
    assert frames("--fps", 5) == [0, 5, 10, 15, 20, 25, 30, 35, 40, 45]
    assert frames("--max-frames", 3) == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--every", "0"], "--every 0: expected 1 or more"),
        (["--fps", "-1"], "--fps"),
        (["--end", "0"], "--end"),
        (["--every", "2", "--fps", "2"], "give one"),
    ],
)
def test_impossible_selections_are_wrong_usage(clip: Path, options: list[str], said: str) -> None:
    result = run_command("infer", clip, "--json", *options)
    assert (result.exit_code, result.stdout) == (2, "") and said in error_lines(result)[0]


def test_times_are_not_for_pictures() -> None:
    result = run_command("infer", ASTRONAUT, "--json", "--start", "1")
    assert (result.exit_code, result.stdout) == (2, "") and "a picture has no time" in error_lines(result)[0]


def test_no_smooth_gives_the_network_s_own_answers(clip: Path) -> None:
    smooth, raw = (json_lines(run_command("infer", clip, "--json", *o)) for o in ([], ["--no-smooth"]))
    told, mean = (
        np.array([record["faces"][0]["reliability"] for record in records]) for records in (raw, smooth)
    )
    assert told[0] == mean[0]
    assert np.abs(np.diff(mean)).mean() < 0.6 * np.abs(np.diff(told)).mean()


def test_abstained_faces_of_a_video_have_no_label(clip: Path, tmp_path: Path) -> None:
    arguments = ["infer", clip, "--min-reliability", "1", "--max-frames", "3"]
    records = json_lines(run_command(*arguments, "--json", "--csv", tmp_path / "faces.csv"))
    faces = [face for record in records for face in record["faces"]]
    assert faces and all(face["label"] is None and face["abstained"] for face in faces)
    assert all(row["label"] == "" for row in csv.DictReader((tmp_path / "faces.csv").open()))
    assert "100%" in run_command(*arguments).stderr  # abstained, in the table of people


def test_a_video_is_never_overwritten(clip: Path) -> None:
    before = clip.read_bytes()
    result = run_command("infer", clip, "--output", clip.parent)
    assert result.exit_code == 1 and "is a source and would be overwritten" in error_lines(result)[0]
    assert clip.read_bytes() == before


def test_jpegs_on_standard_input(tmp_path: Path) -> None:
    photo = ASTRONAUT.read_bytes()
    process = start("-", "--json", stdin=subprocess.PIPE)
    out, errors = process.communicate(photo * 3, timeout=60)
    assert (process.returncode, errors) == (0, b"")
    records = [json.loads(line) for line in out.splitlines()]
    assert [(record["source"], record["frame"]) for record in records] == [("-", 0), ("-", 1), ("-", 2)]
    assert [face["track"] for record in records for face in record["faces"]] == [1, 1, 1]


@pytest.mark.parametrize("given", [b"", b"no picture at all", ASTRONAUT.read_bytes()[:20_000]])
def test_standard_input_without_a_picture_is_an_error(given: bytes) -> None:
    process = start("-", "--json", stdin=subprocess.PIPE)
    out, errors = process.communicate(given, timeout=60)
    assert (process.returncode, out) == (1, b"")
    assert errors.startswith(b"error: -: expected JPEG pictures") and errors.count(b"\n") == 1


def test_video_names_that_are_no_utf8_are_one_line(clip: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"odd\xff.mp4")
    odd.write_bytes(clip.read_bytes())
    for arguments in ((odd,), (clip, "--output", tmp_path / os.fsdecode(b"out\xff"))):
        process = start(*arguments, "--json")
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert b"expected a name in UTF-8" in errors and errors.count(b"\n") == 1


def test_the_table_may_not_take_the_place_of_an_annotated_file(clip: Path, tmp_path: Path) -> None:
    result = run_command("infer", clip, "--output", tmp_path, "--csv", tmp_path / "two-timeline.png")
    assert result.exit_code == 1 and "an annotated file gets this name" in error_lines(result)[0]


def test_a_camera_on_the_network(tmp_path: Path) -> None:
    with MjpegCamera(fps=25) as camera:
        result = run_command("infer", camera.url, "--no-detect", "--json", "--max-frames", 5)
    assert result.exit_code == 0
    records = json_lines(result)
    assert len(records) == 5 and {record["source"] for record in records} == {camera.url}
    frames = [record["frame"] for record in records]
    assert frames == sorted(set(frames))
    assert "5 frames" in result.stderr and "age" in result.stderr


@pytest.fixture
def camera() -> Iterator[MjpegCamera]:
    with MjpegCamera(fps=25) as switched_on:
        yield switched_on


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_live_source_has_no_other_end_than_a_signal(
    camera: MjpegCamera, tmp_path: Path, number: int
) -> None:
    out = tmp_path / "out"
    process = start(camera.url, "--no-detect", "--json", "--csv", tmp_path / "f.csv", "--output", out)
    assert process.stdout is not None and process.stderr is not None
    lines = [process.stdout.readline() for _ in range(10)]
    told = time.monotonic()
    process.send_signal(number)
    lines += process.stdout.readlines()
    errors = process.stderr.read()
    assert process.wait(30) == 0, errors
    assert time.monotonic() - told < 1
    records = [json.loads(line) for line in lines]
    assert len(list(csv.DictReader((tmp_path / "f.csv").open()))) == len(records)
    (video,) = out.iterdir()
    capture = cv2.VideoCapture(str(video))
    assert number_in(capture.read()[1][:, :, ::-1]) > 0


def test_what_a_live_source_gave_outlives_a_failure(camera: MjpegCamera, tmp_path: Path) -> None:
    out, table = tmp_path / "out", tmp_path / "f.csv"
    process = start(camera.url, "--no-detect", "--json", "--csv", table, "--output", out)
    assert process.stdout is not None and process.stderr is not None
    for _ in range(10):
        process.stdout.readline()
    process.stdout.close()  # who reads the lines dies
    assert process.wait(30) == 1
    assert b"error: the reader of the output went away" in process.stderr.read()
    assert len(list(csv.DictReader(table.open()))) >= 10
    (video,) = out.iterdir()
    assert number_in(frames_of(video)[0][:, :, ::-1]) > 0


@pytest.mark.parametrize("last", [[], ["--max-frames", "2"]])
def test_what_follows_a_source_without_an_end_is_refused(camera: MjpegCamera, last: list[str]) -> None:
    result = run_command("infer", camera.url, ASTRONAUT, "--json", *last)
    if last:
        assert result.exit_code == 0 and len(json_lines(result)) == 3
    else:
        assert (result.exit_code, result.stdout) == (2, "") and "never ends" in error_lines(result)[0]


def test_people_who_leave_do_not_cost_the_outputs(clip: Path, tmp_path: Path) -> None:
    process = start(clip, "--csv", tmp_path / "f.csv", "--output", tmp_path / "out")
    assert process.stderr is not None
    process.stderr.close()  # the table of people has no reader
    process.wait(60)
    assert len(list(csv.DictReader((tmp_path / "f.csv").open()))) >= FRAMES
    assert len(frames_of(tmp_path / "out" / "two.mp4")) == FRAMES


def test_a_signal_that_is_ignored_stays_so(camera: MjpegCamera) -> None:
    command = ["nohup", *COMMAND, camera.url, "--no-detect", "--json"]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=ROOT, **pipes)  # type: ignore[call-overload]
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    assert all(process.stdout.readline() for _ in range(25))  # a second of a camera
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_camera_that_hangs_does_not_keep_the_process(camera: MjpegCamera) -> None:
    process = start(camera.url, "--no-detect", "--json")
    assert process.stdout is not None
    process.stdout.readline()
    camera.hangs_at = 0
    time.sleep(0.5)
    told = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert time.monotonic() - told < 1


def test_a_soak_of_500_frames(tmp_path: Path) -> None:
    video = write_clip(tmp_path / "two.mp4", moving_faces(500, faces=2))
    assert soak.soak(soak.Asked(video, ("--threads", "1"), annotate=False), 500)


def test_terminations_at_random_moments(clip: Path) -> None:
    long = soak.Asked(clip, ("--threads", "1"), annotate=True)
    # The bound of a second is for a quiet machine: `python -m tests.benchmarks.soak --stops 50`.
    assert soak.stops(long, 4, seed=864, within_s=5.0)
