"""The edge of the command line: wrong usage, closed outputs, links and devices, absurd requests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_fer.images import write_image
from tests.conftest import error_lines, pattern, run_command

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from edge_fer.commands import main; main()"]


@pytest.fixture
def faces(tmp_path: Path) -> list[Path]:
    write_image(tmp_path / "one.png", pattern(1, 60, 50))
    return [tmp_path / "one.png"]


@pytest.mark.parametrize(
    "arguments",
    [["infer"], ["infer", ""], ["infer", "x.png", "--threads", "0"], ["infer", "x.png", "--what"], ["what"]],
)
def test_wrong_usage_is_one_line(arguments: list[str]) -> None:
    done = subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error: ") and done.stderr.count(b"\n") == 1
    before, help_, _ = done.stderr.partition(b" See --help.")
    assert not help_ or before.endswith((b".", b"?"))


def test_a_closed_standard_output_is_one_line(tiny_bundle: Path, faces: list[Path]) -> None:
    script = f'"{sys.executable}" -c "from edge_fer.commands import main; main()" "$@" >&-'
    arguments = ["infer", faces[0], "--bundle", tiny_bundle, "--no-detect", "--json"]
    command = ["sh", "-c", script, "sh", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"error: standard output is closed") and done.stderr.count(b"\n") == 1


def test_a_closed_standard_error_keeps_nothing_from_being_done(faces: list[Path], tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    code = "import os, sys; os.close(2); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    command = [sys.executable, "-c", code, *COMMAND[1:], "infer", str(faces[0]), "--csv", str(rows)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
    assert len(rows.read_text().splitlines()) >= 2


def test_thousands_of_threads_are_refused(tiny_bundle: Path, faces: list[Path]) -> None:
    result = run_command("infer", "--bundle", tiny_bundle, faces[0], "--no-detect", "--threads", "100000")
    assert (result.exit_code, error_lines(result)) == (1, ["error: expected 1 to 64 threads, got 100000"])


def test_a_link_is_written_through_and_a_device_is_left_alone(
    tiny_bundle: Path, tmp_path: Path, faces: list[Path]
) -> None:
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "device.csv").symlink_to(tmp_path / "pipe.csv")
    assert (
        run_command(
            "infer", "--bundle", tiny_bundle, faces[0], "--no-detect", "--csv", tmp_path / "link.csv"
        ).exit_code
        == 0
    )
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "real.csv").read_text().startswith("source")
    result = run_command(
        "infer", "--bundle", tiny_bundle, faces[0], "--no-detect", "--csv", tmp_path / "device.csv"
    )
    assert result.exit_code == 1 and (tmp_path / "device.csv").is_symlink()
    assert "not a file that could be replaced" in error_lines(result)[0]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("camera:99", "camera:99"),
        ("camera:", "expected camera:0"),
        ("http://127.0.0.1:9/video", "http://127.0.0.1:9/video"),
        ("ftp://host/a.mp4", "expected rtsp://, http:// or https://"),
        ("gst:videotestsrc ! appsink", "without GSTREAMER"),
    ],
)
def test_streams_that_cannot_be_opened_are_one_line(tiny_bundle: Path, source: str, said: str) -> None:
    result = run_command("infer", "--bundle", tiny_bundle, source)
    assert result.exit_code == 1 and len(error_lines(result)) == 1
    assert said in error_lines(result)[0]
