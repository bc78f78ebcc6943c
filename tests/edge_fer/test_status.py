"""How a run goes: on a real terminal, through a pipe, and beside data on standard output."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_fer import status as module
from edge_fer.status import Progress, describe, status

ROOT = Path(__file__).resolve().parents[2]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

RUN = """
import sys, time
from edge_fer.cli_errors import notice
from edge_fer.status import Progress, status
kind, total, data = sys.argv[1], int(sys.argv[2]) or None, sys.argv[3] == "data"
with status(kind, total) as show:
    end = time.monotonic() + 0.8
    number = 0
    while time.monotonic() < end:
        number += 1
        show(Progress(frames=number, faces=2, fps=25.04, age_ms=41.6, label="happiness", detector="yunet"))
        if number == 100:
            notice("camera:0 was lost")
        if data and number % 50 == 0:
            print('{"frame": %d, "text": "%s"}' % (number, "x" * 150), flush=True)
        time.sleep(0.002)
print("last", number, file=sys.stderr)
"""


def on_terminal(kind: str, total: int, data: str = "", *, shared: bool = False) -> tuple[str, str]:
    """Run with standard error on a terminal, if shared the output too; return its text and the output."""
    ours, theirs = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "FORCE_COLOR"}}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, kind, str(total), data],
        stdout=theirs if shared else subprocess.PIPE,
        stderr=theirs,
        env=environment
        | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "30"},
    )
    os.close(theirs)
    chunks = []
    while select.select([ours], [], [], 20)[0]:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # how Linux tells that the other side was closed
            break
        if not chunk:
            break
        chunks.append(chunk)
    output = process.stdout.read().decode() if process.stdout else ""
    if process.stdout:
        process.stdout.close()
    assert process.wait(20) == 0
    os.close(ours)
    return b"".join(chunks).decode(), output


def screen(text: str) -> list[str]:
    """Return what is left on the screen: enough of a terminal for lines that are erased and rewritten."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", text):
        if token == "\r":
            column = 0
        elif token == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif token == "\x1b[2K":
            lines[row] = ""
        elif token == "\x1b[1A":
            row -= 1
        elif not token.startswith("\x1b"):
            lines[row] = lines[row][:column].ljust(column) + token + lines[row][column + len(token) :]
            column += len(token)
    return [line.rstrip() for line in lines if line.strip()]


def test_live_sources_have_one_line_that_is_rewritten_in_place() -> None:
    text, _ = on_terminal("live", 0)
    found = screen(text)
    assert len(found) == 3
    assert found[0] == "note: camera:0 was lost"
    number = int(found[2].split()[1])
    assert number > 100
    assert found[1] == f"25.0 frames/s, 2 faces, happiness, age 42 ms, {number:,} frames, yunet"
    # At most four a second, a first, a last, and one more for the note above it.
    assert 3 <= text.count("frames/s") <= 0.8 * 4 + 4
    assert "\x1b[?25h" in text[text.rindex("\x1b[?25l") :]  # the cursor is back


def test_files_have_a_bar_that_goes_away() -> None:
    text, _ = on_terminal("video", 5000)
    plain = ESCAPE.sub("", text)
    shown = re.findall(r"(\d+)/5,000 frames, 25\.0/s, 2 faces (\S+) left", plain)
    assert 3 <= len(shown) <= 7
    assert re.fullmatch(r"\d:\d\d:\d\d", shown[-1][1])
    assert "━" in plain
    assert [line.split()[0] for line in screen(text)] == ["note:", "last"]


def test_a_file_of_unknown_length_has_its_time_instead() -> None:
    text, _ = on_terminal("video", 0)
    assert re.search(r"\d+ frames, 25\.0/s, 2 faces 0:00:0[01]", ESCAPE.sub("", text))
    assert "left" not in text


def test_an_estimate_that_was_too_low_is_corrected() -> None:
    text, _ = on_terminal("pictures", 10)
    shown = re.findall(r"(\d+)/(\d+) pictures", ESCAPE.sub("", text))
    assert int(shown[-1][0]) > 10
    assert all(int(done) <= int(total) for done, total in shown)


@pytest.mark.parametrize("kind", ["live", "video"])
def test_data_on_standard_output_is_left_alone(kind: str) -> None:
    _, output = on_terminal(kind, 0, "data")
    frames = [json.loads(line)["frame"] for line in output.splitlines()]
    assert len(frames) > 2
    assert frames == [50 * (i + 1) for i in range(len(frames))]


def test_data_on_the_same_terminal_stands_above_the_line() -> None:
    text, _ = on_terminal("live", 0, "data", shared=True)
    found = screen(text)
    # Long lines are broken between words, as wide as the terminal is.
    data = re.findall(r'\{"frame":(\d+),"text":"x{150}"\}', re.sub(r"\s", "", "".join(found)))
    assert len(data) > 2
    assert found[-2].startswith("25.0 frames/s")
    assert not [line for line in found if "{" in line and "frames/s" in line]


@pytest.mark.parametrize(("kind", "lines"), [("live", 3), ("video", 2), ("pictures", 2)])
def test_a_pipe_gets_plain_lines(kind: str, lines: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, kind, "0", ""],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "FORCE_COLOR": "1", "TERM": "xterm-256color"},
    )
    assert done.stdout == ""
    assert "\x1b" not in done.stderr and "\r" not in done.stderr
    assert len(done.stderr.splitlines()) == lines
    assert ("frames/s" in done.stderr) == (kind == "live")  # the last one of a run of a second


def test_a_pipe_gets_a_line_every_ten_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert module._PIPED_EVERY_S == 10
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with status("live", None) as show:
        for number in range(1, 281):  # 35 s at 8 frames a second
            now += 0.125
            show(Progress(frames=number))
    lines = capsys.readouterr().err.splitlines()
    assert [int(re.findall(r"(\d+) frames$", line)[0]) for line in lines] == [80, 160, 240, 280]


def test_it_costs_next_to_nothing_per_frame() -> None:
    with status("live", None) as show:
        progress = Progress(frames=1)
        started = time.perf_counter()
        for _ in range(100_000):
            show(progress)
        assert time.perf_counter() - started < 1.0  # 10 microseconds each


def test_the_line_says_what_happened_and_nothing_else() -> None:
    assert describe(Progress(frames=1, faces=1)) == "-- frames/s, 1 face, 1 frame"
    full = Progress(
        frames=12345, faces=0, fps=7.26, dropped=3, reopened=1, age_ms=12.4, label="fear", detector="cascade"
    )
    assert describe(full) == (
        "7.3 frames/s, 0 faces, fear, age 12 ms, 12,345 frames, 3 dropped, re-opened 1 time, cascade"
    )
    assert "\x1b" not in describe(Progress(frames=1, label="\x1b[31mred"))


def test_a_failure_inside_ends_the_line_and_passes_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), status("live", None) as show:
        show(Progress(frames=7))
        raise KeyError
    assert "7 frames" in capsys.readouterr().err
